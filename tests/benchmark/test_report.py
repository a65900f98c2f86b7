"""A report has the right medians, quartiles and ratios, and its files hold all of it."""

import csv
import json
from dataclasses import asdict, replace

import pytest

from keras_mixers.benchmark import report as module
from keras_mixers.benchmark.report import CSV_COLUMNS, Report, check_csv, summarize
from keras_mixers.benchmark.subjects import Task
from keras_mixers.environment import describe_environment

pytestmark = pytest.mark.backend_independent

TASK = Task("tiny_convmixer", "inference", 4, 8, "float32")
TORCH = ("torch eager contiguous", "torch eager channels_last")


def report_of(times, task=TASK, **options):
    return Report(describe_environment(), tuple(summarize(task, times, 1, {}, **options)))


def test_medians_quartiles_and_ratios_by_round():
    # Round by round the peer takes 2, 1, 4, 3 and 8 times as long as ours: 3 times, though its median is 4 times ours.
    times = {"ours": [1, 2, 1, 4, 0.5], "keras": [2, 2, 4, 12, 4]}
    ours, peer = summarize(TASK, times, 1, {"keras": 7.0})
    assert (ours.low, ours.images_per_second, ours.high) == (2, 4, 4)
    assert (peer.low, peer.images_per_second, peer.high) == (1, 1, 2)
    assert (ours.ours_to_this, peer.ours_to_this) == (1, 3)
    assert (ours.peak_memory_mb, peer.peak_memory_mb) == (None, 7.0)


def test_latency_is_of_one_image():
    (many,) = summarize(TASK, {"ours": [1, 2, 3]}, 2, {})
    (one,) = summarize(replace(TASK, batch=1), {"ours": [1, 2, 3]}, 2, {})
    assert (many.latency_ms, many.images_per_second) == (None, 4)
    assert (one.latency_ms, one.images_per_second) == (1000, 1)


def test_the_fastest_of_each_kind_of_peer_counts():
    printed = str(report_of({"ours": [2], "keras": [8], TORCH[0]: [3], TORCH[1]: [1]}))
    rows = [line.split(maxsplit=4) for line in printed.splitlines()]
    assert ["tiny_convmixer", "inference", "4", "4.00", "keras"] in rows
    assert ["tiny_convmixer", "inference", "4", "0.50", TORCH[1]] in rows
    assert ["tiny_convmixer", "inference", "4", "1.50", TORCH[0]] not in rows


def test_says_when_other_processes_disturbed(monkeypatch):
    monkeypatch.setattr(module.os, "cpu_count", lambda: 2)
    times = {"ours": [1], "keras": [2]}
    for load, disturbed in ((None, False), (0.1, False), (0.9, True)):
        report = report_of(times, load_of_others=load)
        assert {result.disturbed for result in report.results} == {disturbed}
        assert str(report).count("DISTURBED: other processes kept 0.9 of 2 cores busy") == disturbed


def test_says_when_memory_is_given_back():
    report = report_of({"ours": [1], "keras": [2]}, page_faults={"ours": 2, "keras": 30_000})
    assert [result.gives_memory_back for result in report.results] == [False, True]
    assert str(report).count("MEMORY GIVEN BACK: 'keras' took 30,000 page faults for a batch of 4") == 1


def test_csv_and_json_hold_everything(tmp_path):
    report = report_of({"ours": [1, 2], "keras": [3, 5]})
    path = tmp_path / "results.csv"
    report.append_csv(path)
    report.append_csv(path)
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == CSV_COLUMNS
    machine = {f"machine_{name}": value for name, value in asdict(report.machine).items()}
    expected = [{**asdict(result), **machine} for result in report.results] * 2
    assert rows == [{name: "" if v is None else str(v) for name, v in row.items()} for row in expected]

    report.write_json(tmp_path / "results.json")
    assert json.loads((tmp_path / "results.json").read_text()) == json.loads(json.dumps(asdict(report)))


def test_refuses_files_that_it_cannot_write(tmp_path):
    other = tmp_path / "other.csv"
    other.write_text("a,b\n")
    with pytest.raises(ValueError, match="csv must be a new file or one of earlier results"):
        check_csv(other)
    with pytest.raises(ValueError, match="csv must be a file in a folder that exists"):
        check_csv(tmp_path / "missing" / "results.csv")
