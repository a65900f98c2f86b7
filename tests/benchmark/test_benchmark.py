"""What a benchmark does and records, not how fast anything is."""

import sys

import keras
import pytest

from keras_mixers.benchmark.benchmark import benchmark, paper_protocol
from keras_mixers.benchmark.subjects import MODES

module = sys.modules["keras_mixers.benchmark.benchmark"]  # the package has a function of this name

pytestmark = pytest.mark.usefixtures("tiny_models")
TORCH = ("torch eager contiguous", "torch eager channels_last")


@pytest.mark.parametrize(
    ("precision", "modes", "batch"),
    [("float32", MODES, [2, 1]), pytest.param("bfloat16", ["training"], [2], marks=pytest.mark.backend_independent)],
)
def test_a_row_for_each_subject_mode_and_batch(precision, modes, batch):
    pytest.importorskip("torch")
    before = keras.config.dtype_policy()
    settings = {"batch": batch, "image_size": 8, "precision": precision, "modes": modes}
    report = benchmark(["tiny_i"], ["keras", "torch"], repetitions=2, batches=2, **settings)
    assert keras.config.dtype_policy() is before
    rows = [(result.subject, result.mode, result.batch) for result in report.results]
    assert rows == [(subject, mode, n) for mode in modes for n in batch for subject in ("ours", "keras", *TORCH)]
    for result in report.results:
        assert (result.backend, result.model) == (keras.backend.backend(), "tiny_i")
        assert (result.image_size, result.precision) == (8, precision)
        assert 0 < result.low <= result.images_per_second <= result.high
        assert (result.latency_ms is not None) == (result.batch == 1)
    assert not report.notes


def test_models_without_peers_are_measured_alone():
    report = benchmark(["tiny_ii"], ["keras"], batch=[2], image_size=8, modes=["inference"], repetitions=1)
    assert [result.subject for result in report.results] == ["ours"]
    assert len(report.notes) == 1
    assert "got 'tiny_ii', which SplitMixerII builds; it is measured alone." in str(report)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"models": ["tiny_iii"]}, "There is no model named 'tiny_iii'"),
        ({"models": []}, "models, modes and batch must name at least one each"),
        ({"against": ["timm"]}, "against must be one of"),
        ({"batch": [0]}, "batch must be a whole number"),
        ({"image_size": 1}, "An image must be at least one patch"),
        ({"precision": "int8"}, "precision must be one of"),
        ({"modes": ["test"]}, "modes must be one of"),
        ({"repetitions": 0}, "repetitions must be a whole number"),
        ({"batches": 0}, "batches must be a whole number"),
        ({"inference_batches": -1}, "inference_batches must be a whole number"),
    ],
)
def test_refuses_before_any_work(monkeypatch, arguments, message):
    monkeypatch.setattr(module, "make_subjects", lambda *args: pytest.fail("began to work"))
    with pytest.raises(ValueError, match=message):
        benchmark(**{"models": ["tiny_i"], **arguments})


def test_the_papers_protocol(monkeypatch):
    monkeypatch.setattr(module.backends, "device", lambda: "cpu")
    assert paper_protocol() == {"batch": (64,), "precision": "float32", "batches": 20, "inference_batches": 20}
    monkeypatch.setattr(module.backends, "device", lambda: "gpu")
    assert paper_protocol() == {"batch": (64,), "precision": "float16", "batches": 20, "inference_batches": 100}
