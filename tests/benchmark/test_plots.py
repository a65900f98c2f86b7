"""docs/scripts/benchmark_plots.py draws the numbers of its CSVs."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_mixers.benchmark.report import Report, Timing
from keras_mixers.environment import describe_environment

pytestmark = pytest.mark.backend_independent

pytest.importorskip("matplotlib", reason="matplotlib, of the extra visualize, is not installed")

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "docs" / "scripts" / "benchmark_plots.py"
SPLITMIXER, CONVMIXER = "splitmixer_i_256_8", "convmixer_256_8_p2_k5"
SPEEDS = {"ours": 400.0, "keras": 100.0, "torch eager contiguous": 200.0, "torch eager channels_last": 300.0}


@pytest.fixture(scope="module")
def plot():
    spec = importlib.util.spec_from_file_location("plot", SCRIPT)
    plot = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(plot)
    return plot


@pytest.fixture
def folder(tmp_path):
    """A folder of both CSVs: speeds that differ from task to task, and seconds per batch on straight lines."""

    def result(backend, model, speed, subject="ours", mode="inference", batch=64, size=32):
        return Timing(backend, model, subject, mode, batch, size, "float32", speed, 0.9 * speed, 1.2 * speed, 1.0)

    cpu = [
        result(backend, model, speed / (1 + i + 2 * j + 4 * k), subject, mode)
        for i, backend in enumerate(("torch", "jax"))
        for j, mode in enumerate(("inference", "training"))
        for k, model in enumerate((CONVMIXER, SPLITMIXER))
        for subject, speed in SPEEDS.items()
    ]
    scaling = [
        *(result("jax", SPLITMIXER, n / (0.1 + n / 100), batch=n) for n in (16, 32, 64)),
        *(result("torch", SPLITMIXER, 16 / (0.1 + s**2 / 1000), batch=16, size=s) for s in (16, 32, 48)),
        *(result("jax", f"convmixer_256_{n}_p1_k8", 32 / (0.1 + n), batch=32, size=16) for n in (4, 8, 20)),
    ]
    for name, results in (("cpu", cpu), ("scaling", scaling)):
        Report(describe_environment(), tuple(results)).append_csv(tmp_path / f"{name}.csv")
    return tmp_path


def test_fits_straight_lines(plot):
    assert plot.linear_fit([1, 2, 4], [5, 7, 11]) == pytest.approx((2, 3, 1))
    assert plot.linear_fit([0, 1, 2, 3], [0, 2, 1, 3]) == pytest.approx((0.8, 0.3, 0.64))


def test_bars_are_the_medians_and_quartiles(plot, folder):
    figure = plot.draw_subjects(plot.read_rows(folder / "cpu.csv"))
    panels = {axes.get_title(): axes for axes in figure.axes}
    assert list(panels) == [
        f"{mode}, Keras on {name}" for mode in ("inference", "training") for name in ("jax", "torch")
    ]
    for title, axes in panels.items():
        assert [label.get_text() for label in axes.get_xticklabels()] == [SPLITMIXER, CONVMIXER]
        slower = 1 + ("jax" in title) + 2 * ("training" in title)
        bars = [container for container in axes.containers if hasattr(container, "patches")]
        assert [container.get_label() for container in bars] == list(plot.SUBJECTS)
        for container, speed in zip(bars, (400, 100, 300), strict=True):
            expected = np.array([speed / (slower + 4), speed / slower])
            np.testing.assert_allclose([bar.get_height() for bar in container], expected)
            quartiles = np.array(container.errorbar.lines[2][0].get_segments())[:, :, 1]
            np.testing.assert_allclose(quartiles, np.outer(expected, [0.9, 1.2]))


def test_the_latest_of_repeated_measurements_counts(plot, folder):
    rows = plot.read_rows(folder / "cpu.csv")
    again = [{**row, "images_per_second": "7", "low": "7", "high": "7"} for row in rows]
    figure = plot.draw_subjects([*rows, *again])
    assert {bar.get_height() for axes in figure.axes for bar in axes.patches} == {7}


@pytest.mark.parametrize(
    ("panel", "title", "line", "xs", "ys"),
    [
        (0, "against images in a batch\n(1,024 pixels in an image, 8 blocks)",
         "jax, SplitMixer-I-256, kernel 5, patch 2", [16, 32, 64], [0.26, 0.42, 0.74]),
        (1, "against pixels in an image\n(16 images in a batch, 8 blocks)",
         "torch, SplitMixer-I-256, kernel 5, patch 2", [256, 1024, 2304], [0.356, 1.124, 2.404]),
        (2, "against blocks\n(32 images in a batch, 256 pixels in an image)",
         "jax, ConvMixer-256, kernel 8, patch 1", [4, 8, 20], [4.1, 8.1, 20.1]),
    ],
)  # fmt: skip
def test_points_are_the_seconds_of_a_batch(plot, folder, panel, title, line, xs, ys):
    axes = plot.draw_scaling(plot.read_rows(folder / "scaling.csv")).axes[panel]
    points, fit = axes.lines
    np.testing.assert_allclose(points.get_xydata(), np.transpose([xs, ys]))
    np.testing.assert_allclose(fit.get_xydata(), points.get_xydata()[[0, -1]])
    assert axes.get_title() == title
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [f"{line}: R² = 1.0000"]


def test_a_script_that_leaves_out_what_is_not_there(folder):
    command = [sys.executable, str(SCRIPT), str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "KERAS_BACKEND": keras.backend.backend()}
    subprocess.run(command, env=environment, check=True)
    for name in ("cpu", "scaling"):
        assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        (folder / f"{name}.png").unlink()
    (folder / "scaling.csv").unlink()
    subprocess.run(command, env=environment, check=True)
    assert {path.name for path in folder.iterdir()} == {"cpu.csv", "cpu.png"}
