"""`export` writes a trained network for another runtime and says how both compare."""

import json

import pytest
from drawn_images import write_class_folders

import keras_mixers
from keras_mixers.export import read_metadata

pytestmark = pytest.mark.backend_independent


def test_writes_and_compares(run, trained, photos, tmp_path):
    printed = run("export", trained / "model.keras", tmp_path / "small.onnx", "--images", photos)
    assert "small.onnx: onnx, " in printed
    assert "the same class for 100.0 % of 24 images, outputs within" in printed
    assert read_metadata(tmp_path / "small.onnx")["class_names"] == ["blue", "green", "red"]


def test_takes_a_network_that_does_not_say_which_pixels_it_takes(run, tmp_path):
    keras_mixers.SplitMixerI(8, 1, input_shape=(16, 16, 3), data_format="channels_last").save(tmp_path / "own.keras")
    report = json.loads(run("export", tmp_path / "own.keras", tmp_path / "small.keras", "--json"))
    assert report["agreement"] == 1.0


def test_prints_json(run, trained, tmp_path):
    arguments = ["--raw-pixels", "--probabilities", "--batch-size", 2, "--json"]
    report = json.loads(run("export", trained / "model.keras", tmp_path / "small.keras", *arguments))
    assert (report["format"], report["images"], report["agreement"]) == ("keras", 32, 1.0)
    assert read_metadata(tmp_path / "small.keras")["gives"] == "probabilities"


def test_refuses(refused, trained, tmp_path):
    model = trained / "model.keras"
    assert "did you mean 'litert'?" in refused("export", model, tmp_path / "a.tflite", "--format", "litter")
    assert "format must be given, or the path end" in refused("export", model, tmp_path / "a.pb")
    assert "There is no folder of images at 'no'." in refused("export", model, tmp_path / "a.onnx", "--images", "no")
    assert "holds no images (" in refused("export", model, tmp_path / "a.onnx", "--images", tmp_path)
    assert "needs representative_data" in refused("export", model, tmp_path / "a.onnx", "--quantization", "int8")
    assert "path must not exist yet" in refused("export", model, tmp_path, "--format", "saved_model", status=2)
    too_strict = refused("export", model, tmp_path / "a.keras", "--tolerance", "1e-20", status=1)
    assert "more than tolerance=1e-20; nothing was written" in too_strict
    assert not list(tmp_path.iterdir())


def test_takes_images_for_int8_from_a_folder(run, trained, tmp_path):
    photos = write_class_folders(tmp_path / "photos", 6, 20)
    arguments = ["--quantization", "int8", "--representative", photos]
    assert "(int8)" in run("export", trained / "model.keras", tmp_path / "small.onnx", *arguments)
