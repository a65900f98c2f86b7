"""A new format is one file and one row: `numpy_format.py`, and what `monkeypatch` sets here."""

import pytest
from drawn_images import scenes
from numpy_format import NumpyFile
from small_networks import small

from keras_mixers.__main__ import main
from keras_mixers.export import FORMATS, ExportError, export_model, read_metadata


@pytest.fixture(autouse=True)
def row(monkeypatch):
    monkeypatch.setitem(FORMATS, "numpy", NumpyFile())


@pytest.mark.parametrize(("quantization", "tolerance"), [(None, 1e-5), ("float16", 1e-2)])
def test_is_written_opened_compared_and_reported(quantization, tolerance, randomize, tmp_path):
    network = randomize(small("ConvMixer", input_shape=(16, 16, 3)))
    network.class_names = ("a", "b", "c", "d", "e")
    report = export_model(network, tmp_path / "network.npz", quantization=quantization)
    assert (report.format, report.quantization, report.images) == ("numpy", quantization, 32)
    assert (1e-5 if quantization else 0) < report.max_difference < tolerance
    assert report.bytes == report.path.stat().st_size
    said = read_metadata(report.path)
    assert (said["class_names"], said["gives"]) == (list(network.class_names), "logits")


@pytest.mark.backend_independent
def test_what_differs_is_not_written(randomize, monkeypatch, tmp_path):
    monkeypatch.setattr(NumpyFile, "open", lambda self, path: lambda images: 0 * images[:, 0, 0, :1])
    with pytest.raises(ExportError, match=r"The numpy network differs from its original by .* tolerance=1e-05"):
        export_model(randomize(small("ConvMixer")), tmp_path / "network.npz")
    assert not list(tmp_path.iterdir())


@pytest.mark.backend_independent
def test_its_own_conditions_hold(tmp_path):
    network = small("ConvMixer")
    for arguments, message in (
        ({"format": "numpy"}, r"path must end with \.npz for format='numpy'"),
        ({"format": "nunpy"}, r"one of .*'keras', 'numpy', got format='nunpy'; did you mean 'numpy'\?"),
        ({"format": "onnx", "quantization": "float16"}, r"'float16' exists for litert and numpy, not for"),
    ):
        with pytest.raises(ValueError, match=message):
            export_model(network, tmp_path / "network.onnx", images=scenes(1, 8), **arguments)


@pytest.mark.backend_independent
def test_the_command_lists_it(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "1000")
    with pytest.raises(SystemExit):
        main(["export", "--help"])
    shown = capsys.readouterr().out
    assert ".npz (NumPy)" in shown
    assert "keras, numpy (default: that of the suffix)" in shown
    assert "float16 (litert, numpy)" in shown
