"""Several devices and several processes train as one does; what ends one of them ends the others."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import keras
import pytest
from shared_run import train_case
from small_run import RECIPE, BreakOff, assert_same_curve

from keras_mixers.data import DataShard
from keras_mixers.training import fit, join_processes, reproduction
from keras_mixers.training.devices import Devices, find_devices
from keras_mixers.training.history import read_history
from keras_mixers.training.prepare import shared_batch_size
from keras_mixers.training.results import read_results

BACKEND = keras.backend.backend()
TESTS = Path(__file__).parents[1]
shares = pytest.mark.skipif(BACKEND == "torch", reason="a process has one device on PyTorch")
on_torch = pytest.mark.skipif(BACKEND != "torch", reason="a process has several devices, which other tests train on")


def environment(**more):
    path = os.pathsep.join(map(str, (TESTS.parent, TESTS, TESTS / "training")))
    return {**os.environ, "KERAS_BACKEND": BACKEND, "PYTHONPATH": path, **more}


def free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def start(directory, *cases, processes=1, **more):
    """Starts the processes of runs, each with its own view of the others."""
    addresses = [f"127.0.0.1:{port}" for port in free_ports(processes)]
    started = []
    for i in range(processes):
        if processes == 1:
            others = {}
        elif BACKEND == "tensorflow":
            task = {"type": "worker" if i else "chief", "index": max(i - 1, 0)}
            cluster = {"chief": addresses[:1], "worker": addresses[1:]}
            others = {"TF_CONFIG": json.dumps({"cluster": cluster, "task": task})}
        elif BACKEND == "torch":
            host, port = addresses[0].split(":")
            others = {"MASTER_ADDR": host, "MASTER_PORT": port, "WORLD_SIZE": str(processes), "RANK": str(i)}
            others["OMP_NUM_THREADS"] = "1"  # as torchrun sets it
        else:
            others = {"JOB_ADDRESSES": addresses[0], "NUM_PROCESSES": str(processes), "PROCESS_ID": str(i)}
            others = {f"KERAS_DISTRIBUTION_{name}": value for name, value in others.items()}
        command = [sys.executable, str(TESTS / "training" / "shared_run.py"), str(directory), *cases]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        started.append(subprocess.Popen(command, env=environment(**others, **more), **pipes))
    return started


def outputs(processes, seconds=400):
    """Waits for processes; returns what each printed."""
    try:
        return [process.communicate(timeout=seconds)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()


def last_lines(processes):
    """Waits for processes that succeed; returns the last line of each."""
    printed = outputs(processes)
    assert not any(process.returncode for process in processes), "\n".join(printed)
    return [output.splitlines()[-1] for output in printed]


def wait_until(condition, processes, seconds=300):
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline or any(process.poll() is not None for process in processes):
            for process in processes:
                process.kill()
            pytest.fail("\n".join(outputs(processes)))
        time.sleep(0.1)


def is_stopped(process):
    """Whether a process has got SIGSTOP."""
    return subprocess.check_output(["ps", "-o", "state=", "-p", str(process)], text=True).startswith("T")


def assert_same_history(directory, expected, tolerance=1e-4):
    assert_same_curve(SimpleNamespace(history=read_history(directory / "history.csv")), expected, tolerance=tolerance)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return train_case(tmp_path_factory.mktemp("alone") / "run", "plain")


@shares
@pytest.mark.parametrize("case", ["everything"] if BACKEND == "jax" else ["everything", "float16"])
def test_two_devices_train_as_one(case, tmp_path):
    expected = train_case(tmp_path / "one", case)
    (line,) = last_lines(start(tmp_path, case, SHARED_RUN_DEVICES="2"))
    assert line.endswith("devices 2")
    assert_same_history(tmp_path / case, expected, 1e-4 if case != "float16" else 1e-2)
    metrics = json.loads((tmp_path / case / "metrics.json").read_text())
    assert metrics["top1"] == pytest.approx(expected.metrics["top1"], abs=1e-6)


# A TensorFlow or PyTorch process has one device on a CPU.
@pytest.mark.parametrize("devices", ["2"] if BACKEND == "jax" else ["1"])
def test_two_processes_train_as_one_and_the_first_writes(devices, alone, tmp_path):
    first, second = last_lines(start(tmp_path, "plain", processes=2, SHARED_RUN_DEVICES=devices))
    assert first == second
    assert first.endswith(f"devices {2 * int(devices)}")
    assert_same_history(tmp_path / "plain", alone)


def test_four_processes_train_as_one(tmp_path):
    lines = last_lines(start(tmp_path, "convmixer", processes=4))
    assert len(set(lines)) == 1
    assert lines[0].endswith("devices 4")
    assert_same_history(tmp_path / "convmixer", train_case(tmp_path / "one", "convmixer"))


@on_torch
def test_processes_share_accumulated_gradients_averaged_weights_and_skipped_steps(tmp_path):
    """In one run after the other, as `reproduce` has them; in float16 the first steps are skipped."""
    cases = {"accumulated": 1e-4, "muon": 1e-4, "bfloat16": 1e-2, "float16": 1e-2}
    last_lines(start(tmp_path, *cases, processes=2))
    for case, tolerance in cases.items():
        expected = train_case(tmp_path / "one" / case, case)
        assert_same_history(tmp_path / case, expected, tolerance)


@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_process_ends_the_other_with_a_message_and_both_resume(victim, alone, tmp_path):
    processes = start(tmp_path, "plain", processes=2, SHARED_RUN_HALTS=str(victim))
    wait_until(lambda: is_stopped(processes[victim].pid), processes)
    processes[victim].send_signal(signal.SIGKILL)
    other = processes[1 - victim]
    printed = outputs([other], seconds=120)[0]
    assert other.returncode != 0
    assert re.search(r"lost another one, which has ended or cannot be reached|another task died", printed), printed
    last_lines(start(tmp_path, "plain", processes=2, SHARED_RUN_RESUME="1"))
    assert_same_history(tmp_path / "plain", alone)


@on_torch
@pytest.mark.parametrize("victim", [0, 1])
def test_a_process_that_gives_no_sign_of_life_ends_the_other_with_a_message(victim, tmp_path):
    """As one on a machine that is gone: its connections stay open."""
    processes = start(tmp_path, "plain", processes=2, SHARED_RUN_HALTS=str(victim))
    wait_until(lambda: is_stopped(processes[victim].pid), processes)
    began, other = time.monotonic(), processes[1 - victim]
    printed = outputs([other], seconds=120)[0]
    processes[victim].kill()
    assert time.monotonic() - began < 30  # 8 s without a sign, and what a busy machine takes
    assert other.returncode == 1
    assert "lost another one, which has ended or cannot be reached" in printed, printed


@on_torch
def test_one_process_that_is_asked_to_stop_stops_all_within_an_epoch(alone, tmp_path):
    processes = start(tmp_path, "plain", processes=2, SHARED_RUN_ASKED="1")
    for printed in outputs(processes):
        assert "Stopped in epoch 2 after 2 batches; --resume continues from" in printed
    assert [path.name for path in (tmp_path / "plain" / "checkpoints").glob("epoch_0001_step_000002.npz")]
    last_lines(start(tmp_path, "plain", processes=2, SHARED_RUN_RESUME="1"))
    assert_same_history(tmp_path / "plain", alone)


@pytest.mark.backend_independent
def test_only_what_an_engine_says_of_its_peers_is_a_lost_process():
    import tensorflow as tf

    two = Devices(DataShard(process=0, processes=2, devices=2))
    for error, told in (
        (tf.errors.UnavailableError(None, None, "Connection reset by peer"), ConnectionError),
        (tf.errors.AbortedError(None, None, "Collective ops is aborted"), ConnectionError),
        (tf.errors.InvalidArgumentError(None, None, "photos/connection reset/1.jpg is no image"), None),
        (ValueError("weights: the connection refused; nccl, gloo"), None),
        (ConnectionError("The data set cannot be fetched: there is no connection"), None),
    ):
        with pytest.raises(told or type(error)) as raised, two.naming_lost_processes():
            raise error
        assert (raised.value is error) == (told is None)


def test_a_run_of_one_is_resumed_by_two(alone, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train_case(tmp_path / "plain", "plain", callbacks=[BreakOff(2, 0)])
    last_lines(start(tmp_path, "plain", processes=2, SHARED_RUN_RESUME="1"))
    assert_same_history(tmp_path / "plain", alone)


@pytest.mark.parametrize(("process", "rows"), [(0, 1), (1, 0)])
def test_the_first_of_several_processes_keeps_the_results(process, rows, monkeypatch, tmp_path):
    metrics = {"params": 9, "top1": 0.5, "seconds": 60}
    run = SimpleNamespace(metrics=metrics, writes=process == 0)
    monkeypatch.setattr(reproduction, "fit", lambda *_, **__: run)
    results = tmp_path / "results.csv"
    assert len(reproduction.reproduce(["cifar10_smoke"], results, output_dir=tmp_path)) == 1
    assert len(read_results(results)) == rows


@on_torch
def test_pytorch_names_torchrun_where_a_process_should_have_two_devices(tmp_path):
    with pytest.raises(ValueError, match=r"devices must be 1 on PyTorch, got devices=2: .*--nproc-per-node 2"):
        fit(RECIPE, output_dir=tmp_path, devices=2)
    assert not list(tmp_path.iterdir())


@shares
def test_refuses_devices_that_are_not_there(tmp_path):
    with pytest.raises(ValueError, match=r"devices must be a whole number from 1 to \d+, as many as there are, got 64"):
        fit(RECIPE, output_dir=tmp_path, devices=64)
    assert find_devices(1).share.devices == 1
    assert not list(tmp_path.iterdir())


def test_refuses_what_devices_cannot_share():
    two = Devices(DataShard(devices=2), local=2)
    for changes, devices, message in (
        ({"batch_size": 33}, two, r"2 devices must share a batch equally, got batch_size=33; choose a multiple"),
        ({"batch_size": 6, "accumulation": 2}, two, r"got batch_size=6 / accumulation=2; choose a multiple, or fewer"),
        ({"accumulation": 2}, replace(two, accumulates=False), r"accumulation must be 1 on several .* accumulation=2"),
    ):
        with pytest.raises(ValueError, match=message):
            shared_batch_size(replace(RECIPE, **changes), devices)


@pytest.mark.skipif(BACKEND == "tensorflow", reason="TensorFlow reads TF_CONFIG")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("127.0.0.1:1", 2, None), "must be given together, but process is not there"),
        ((None, 2, 0), "but coordinator is not there"),
        (("127.0.0.1:1", 2, 2), "process must be in 0 to 1, got process=2"),
        (("127.0.0.1", 2, 0), r"coordinator must be HOST:PORT, such as 10.0.0.1:8476, got coordinator='127.0.0.1'"),
        (("127.0.0.1:65536", 2, 1), "coordinator must be HOST:PORT"),
        (("127.0.0.1:1", "two", 0), "must be whole numbers, got processes='two'"),
    ],
)
def test_refuses_processes_that_are_not_described(arguments, message):
    with pytest.raises(ValueError, match=message):
        join_processes(*arguments)


@pytest.mark.skipif(BACKEND == "tensorflow", reason="TensorFlow reads TF_CONFIG")
def test_says_that_nobody_listens_at_the_coordinators_address(monkeypatch):
    monkeypatch.setattr(f"keras_mixers.training.devices_on_{BACKEND}.JOINING_SECONDS", 0.2)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
        with pytest.raises(
            ConnectionError, match=f"Process 1 of 2 found nobody at '{address}' for 0.2 s .*start process 0"
        ):
            join_processes(address, 2, 1)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="JAX and PyTorch have these arguments")
def test_tensorflow_names_its_own_way(monkeypatch, tmp_path):
    with pytest.raises(ValueError, match=r"environment variable TF_CONFIG"):
        join_processes("127.0.0.1:1", 2, 0)
    for damaged in ("{", '{"cluster": {"worker": ["127.0.0.1:1"]}}'):
        monkeypatch.setenv("TF_CONFIG", damaged)
        with pytest.raises(ValueError, match=r"TF_CONFIG does not describe the processes of a run"):
            join_processes()
    import tensorflow as tf

    tf.zeros(1)
    cluster = {"worker": ["127.0.0.1:1", "127.0.0.1:2"]}
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": cluster, "task": {"type": "worker", "index": 0}}))
    with pytest.raises(ValueError, match=r"call keras_mixers.training.join_processes\(\) first"):
        fit(RECIPE, output_dir=tmp_path)
