"""Every format from every backend gives what the network gives, in its own runtime; what differs is not written."""

import os
import subprocess
import sys
from dataclasses import replace

import keras
import numpy as np
import pytest
from drawn_images import scenes
from keras import ops
from small_networks import small

import keras_mixers
from keras_mixers.export import FORMATS, ExportError, ExportReport, export_model, read_metadata

PIXELS = replace(keras_mixers.get_preset("splitmixer_i_256_8").pixels, size=16)
CLASSES = ("a", "b", "c", "d", "e")
NAMES = {"saved_model": "network", "openvino": "network.xml", "onnx": "network.onnx", "litert": "network.tflite",
         "torch": "network.pt2", "keras": "network.keras"}  # fmt: skip


@pytest.fixture(scope="module")
def network(randomize):
    network = randomize(small("SplitMixerI"))
    network.pixels, network.class_names = PIXELS, CLASSES
    return network


BACKEND = keras.backend.backend()
on_tensorflow = pytest.mark.skipif(BACKEND != "tensorflow", reason="TensorFlow writes it, whichever backend starts it")
on_torch = pytest.mark.skipif(BACKEND != "torch", reason="PyTorch writes it, whichever backend starts it")


@pytest.fixture(scope="module")
def photographs():
    return scenes(12, 20)


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_from_every_backend(format, network, photographs, tmp_path):
    report = export_model(network, tmp_path / NAMES[format], format, images=photographs)
    assert report.max_difference <= 1e-5
    assert report.agreement == 1
    assert (report.format, report.backend, report.images) == (format, BACKEND, 12)
    assert report.latency > 0
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert report.bytes == sum(path.stat().st_size for path in written)
    expected = {"network.xml", "network.bin"} if format == "openvino" else {NAMES[format]}
    assert {path.name for path in tmp_path.iterdir()} == expected
    said = read_metadata(report.path)
    assert said["class_names"] == list(CLASSES)
    assert said["pixels"]["size"] == 16
    assert (said["takes"], said["gives"]) == ("normalised pixels", "logits")


@pytest.mark.parametrize(
    ("builder", "format"),
    [
        *(pytest.param(name, "litert", marks=on_tensorflow) for name in ("gMixer", "ResMLP", "gMLP")),
        pytest.param("gMLP", "saved_model", marks=on_tensorflow),
        pytest.param("gMixer", "onnx", marks=on_torch),
        pytest.param("ResMLP", "openvino", marks=on_torch),
        pytest.param("gMLP", "torch", marks=on_torch),
        ("MLPMixer", "keras"),
    ],
)
def test_networks_that_mix_all_positions(builder, format, randomize, photographs, tmp_path):
    network = randomize(small(builder, input_shape=(16, 16, 3), patch_size=4))
    network.pixels = PIXELS
    path = tmp_path / NAMES[format]
    report = export_model(network, path, images=photographs, raw_pixels=True, probabilities=True, format=format)
    assert report.max_difference <= 1e-5
    if format == "litert":  # of shapes that are known, as XNNPACK computes no others
        assert not {"SHAPE", "FULLY_CONNECTED"} & set(operations_of(path)[:-2])
        assert not [name for name in operations_of(path) if name.startswith("Flex")]


def run_elsewhere(code, folder, forbidden):
    """Runs code in a process where some modules cannot be imported, and gives the array that it leaves."""
    code = (
        f"import sys; sys.modules.update({dict.fromkeys(forbidden)!r}); import numpy as np; folder = sys.argv[1]; "
        f"images = np.load(folder + '/images.npy'); {code}; "
        "np.save(folder + '/outputs.npy', outputs)"
    )
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "KERAS_BACKEND")}
    subprocess.run([sys.executable, "-c", code, str(folder)], check=True, env=environment, cwd=folder)
    return np.load(folder / "outputs.npy")


ELSEWHERE = {
    "saved_model": (
        "import tensorflow as tf; serve = tf.saved_model.load(folder + '/network').signatures['serving_default']; "
        "outputs = serve(image=tf.constant(images))['logits'].numpy()",
        ("keras", "keras_mixers"),
    ),
    "litert": (
        "from ai_edge_litert.interpreter import Interpreter; "
        "outputs = Interpreter(folder + '/network.tflite').get_signature_runner()(image=images)['logits']",
        ("keras", "keras_mixers", "tensorflow", "torch", "jax"),
    ),
    "onnx": (
        "import onnxruntime; session = onnxruntime.InferenceSession(folder + '/network.onnx'); "
        "outputs = session.run(['logits'], {'image': images})[0]",
        ("keras", "keras_mixers", "tensorflow", "torch", "jax"),
    ),
}


@on_tensorflow
@pytest.mark.parametrize("format", ELSEWHERE)
def test_runs_where_neither_this_library_nor_its_backend_is(format, network, rng, tmp_path):
    export_model(network, tmp_path / NAMES[format], format, image_size="any")
    images = rng.normal(size=(3, 12, 18, 3)).astype("float32")  # another number, and other sizes, than were tried
    np.save(tmp_path / "images.npy", images)
    code, forbidden = ELSEWHERE[format]
    expected = ops.convert_to_numpy(network(images, training=False))
    np.testing.assert_allclose(run_elsewhere(code, tmp_path, forbidden), expected, atol=2e-5)


@on_tensorflow
@pytest.mark.parametrize(("quantization", "tolerance"), [("float16", 1e-2), ("dynamic", 0.05), ("int8", 0.1)])
def test_smaller_numbers(quantization, tolerance, randomize, photographs, tmp_path):
    network = randomize(small("SplitMixerI", dim=64))  # the converter leaves small kernels as they are
    network.pixels = PIXELS
    wide = export_model(network, tmp_path / "wide.tflite", images=photographs)
    report = export_model(
        network, tmp_path / "small.tflite", quantization=quantization, images=photographs,
        representative_data=photographs if quantization == "int8" else None,
    )  # fmt: skip
    assert 1e-6 < report.max_difference < tolerance
    assert report.quantization == quantization
    kinds = types_of(tmp_path / "small.tflite")
    assert {"float16": np.float16, "dynamic": np.int8, "int8": np.int8}[quantization] in kinds
    assert wide.max_difference <= 1e-5


@on_tensorflow
@pytest.mark.parametrize(("builder", "quantization"), [("gMLP", "dynamic"), ("gMLP", "int8"), ("ResMLP", "int8")])
def test_smaller_numbers_where_all_positions_are_mixed(builder, quantization, randomize, photographs, tmp_path):
    network = randomize(small(builder, dim=64, input_shape=(16, 16, 3), patch_size=4))
    network.pixels = PIXELS
    report = export_model(
        network, tmp_path / "small.tflite", quantization=quantization, images=photographs,
        representative_data=photographs if quantization == "int8" else None, raw_pixels=quantization == "int8",
    )  # fmt: skip
    assert 1e-6 < report.max_difference < {"dynamic": 0.05, "int8": 0.1}[quantization]
    assert np.int8 in types_of(tmp_path / "small.tflite")


def types_of(path):
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path))
    interpreter.allocate_tensors()
    return {tensor["dtype"] for tensor in interpreter.get_tensor_details()}


def operations_of(path):
    """The operations of a file, as its author wrote them."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    plain = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    operations = Interpreter(str(path), experimental_op_resolver_type=plain)._get_ops_details()
    return [operation["op_name"] for operation in operations]


@on_tensorflow
def test_builtin_operations_only_and_at_most_half_of_those_of_norms(randomize, tmp_path):
    network = randomize(small("SplitMixerI", input_shape=(16, 16, 3), blocks=4))
    operations = {}
    for name, fold in (("folded", True), ("plain", False)):
        export_model(network, tmp_path / f"{name}.tflite", fold=fold)
        operations[name] = operations_of(tmp_path / f"{name}.tflite")
    # Both have two spatial convolutions a block; the pointwise ones and the embedding are 1 x 1 and p x p.
    assert operations["plain"].count("CONV_2D") == operations["folded"].count("CONV_2D") == 5
    of_norms = {
        "plain": operations["plain"].count("MUL") + operations["plain"].count("ADD") - 4,  # 4 residuals
        "folded": operations["folded"].count("DEPTHWISE_CONV_2D") - 8 + operations["folded"].count("ADD") - 4,
    }
    assert of_norms == {"plain": 2 * 13, "folded": 12}
    assert "MUL" not in operations["folded"]
    assert not [name for name in operations["folded"] + operations["plain"] if name.startswith("Flex")]


@on_tensorflow
@pytest.mark.parametrize("quantization", [None, "int8"])
def test_large_kernels_are_written_in_blocks(quantization, randomize, photographs, tmp_path, monkeypatch):
    network = randomize(small("ConvMixer", dim=32, kernel_size=7, input_shape=(16, 16, 3)))
    network.pixels = PIXELS
    arguments = {"images": photographs, "quantization": quantization, "representative_data": photographs}
    report = export_model(network, tmp_path / "blocks.tflite", **arguments)
    monkeypatch.setattr("keras_mixers.export.litert.DEPTHWISE_TAPS", None)
    whole = export_model(network, tmp_path / "whole.tflite", **arguments)
    assert taps_of(tmp_path / "whole.tflite") - taps_of(tmp_path / "blocks.tflite") == {49}
    assert max(taps_of(tmp_path / "blocks.tflite")) <= 25
    assert whole.max_difference < (0.05 if quantization else 1e-5)
    assert report.max_difference < (2 * whole.max_difference if quantization else 1e-5)


def taps_of(path):
    """The sizes of the depthwise kernels of a LiteRT file."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    plain = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = Interpreter(str(path), experimental_op_resolver_type=plain)
    shapes = {tensor["index"]: tensor["shape"] for tensor in interpreter.get_tensor_details()}
    depthwise = [each for each in interpreter._get_ops_details() if each["op_name"] == "DEPTHWISE_CONV_2D"]
    return {int(np.prod(shapes[each["inputs"][1]][1:3])) for each in depthwise}


@pytest.mark.backend_independent
@pytest.mark.parametrize("builder", ["SplitMixerI", "StrideMixer", "gMLP"])
def test_onnx_in_eight_bits(builder, randomize, photographs, tmp_path):
    network = randomize(small(builder, input_shape=(16, 16, 3)))
    network.pixels = PIXELS
    for quantization, tolerance in (("dynamic", 0.05), ("int8", 0.1)):
        report = export_model(
            network, tmp_path / f"{quantization}.onnx", quantization=quantization, images=photographs,
            representative_data=photographs if quantization == "int8" else None, raw_pixels=True,
        )  # fmt: skip
        assert 1e-6 < report.max_difference < tolerance
        import onnx

        graph = onnx.load(report.path).graph
        # Signed weights would overflow on x86 CPUs without VNNI, where this network then differs by 0.3.
        numbers = {tensor.data_type for tensor in graph.initializer}
        assert onnx.TensorProto.UINT8 in numbers
        assert onnx.TensorProto.INT8 not in numbers
    kinds = {node.op_type for node in graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= kinds


@pytest.mark.backend_independent
@pytest.mark.parametrize("format", ["onnx", "keras"])
def test_raw_pixels_in_and_probabilities_out(format, network, photographs, tmp_path):
    report = export_model(
        network, tmp_path / NAMES[format], raw_pixels=True, probabilities=True, images=photographs, labels=[0] * 12
    )
    assert report.max_difference <= 1e-5
    assert report.accuracy == report.original_accuracy
    said = read_metadata(report.path)
    assert (said["takes"], said["gives"]) == ("raw pixels", "probabilities")


@on_tensorflow
def test_integers_in_and_out(network, photographs, tmp_path):
    from ai_edge_litert.interpreter import Interpreter

    path = tmp_path / "network.tflite"
    integers = {"quantization": "int8", "raw_pixels": True, "integer_io": True}
    report = export_model(network, path, representative_data=photographs, batch_size=5, **integers)
    assert report.max_difference < 0.1
    (image,) = Interpreter(str(path)).get_input_details()
    (output,) = Interpreter(str(path)).get_output_details()
    assert (image["dtype"], output["dtype"]) == (np.uint8, np.int8)
    assert image["quantization"] == (1.0, 0)  # an integer is the pixel that it is


@on_tensorflow
def test_fixed_batch_and_size(network, photographs, tmp_path):
    from ai_edge_litert.interpreter import Interpreter

    export_model(network, tmp_path / "network.tflite", batch_size=5, image_size=(16, 8), images=photographs)
    (image,) = Interpreter(str(tmp_path / "network.tflite")).get_input_details()
    assert image["shape_signature"].tolist() == [5, 16, 8, 3]


@pytest.mark.backend_independent
def test_a_network_trained_in_half_precision_leaves_in_full(randomize, photographs, tmp_path):
    network = randomize(small("SplitMixerI", dtype="mixed_float16", data_format="channels_first"))
    network.pixels = PIXELS
    assert export_model(network, tmp_path / "network.keras", images=photographs).max_difference <= 1e-5


@pytest.mark.backend_independent
def test_other_models_leave_as_they_are(rng, tmp_path):
    layers = [keras.layers.Conv2D(4, 3), keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(3)]
    other = keras.Sequential([keras.Input((8, 8, 3)), *layers])
    images = rng.normal(size=(4, 8, 8, 3)).astype("float32")
    report = export_model(other, tmp_path / "other.onnx", images=images, probabilities=True)
    assert (report.images, report.agreement) == (4, 1)


@keras.saving.register_keras_serializable(package="tests")
class Own(keras.layers.Layer):
    def call(self, x):
        return x


@pytest.mark.backend_independent
def test_says_why_a_model_cannot_leave(tmp_path):
    """A class of the user's own is not known in the process that writes on another backend."""
    format = "litert" if BACKEND != "tensorflow" else "onnx"
    own = keras.Sequential([keras.Input((8, 8, 3)), Own(), keras.layers.Flatten(), keras.layers.Dense(2)])
    with pytest.raises(
        ExportError, match=rf"The process that writes {format} cannot load the network \(Could not locate class 'Own'\)"
    ):
        export_model(own, tmp_path / NAMES[format], images=np.zeros((1, 8, 8, 3)))
    assert not list(tmp_path.iterdir())


@pytest.mark.backend_independent
def test_what_differs_is_not_written(network, photographs, tmp_path):
    with pytest.raises(ExportError, match=r"differs from its original by .* more than tolerance=1e-12; nothing was"):
        export_model(network, tmp_path / "network.keras", images=photographs, tolerance=1e-12)
    assert not list(tmp_path.iterdir())


REFUSED = {
    "a format's name": ({"format": "onxx"}, r"format must be one of .*, got format='onxx'; did you mean 'onnx'\?"),
    "no format": ({"path": "network.h5"}, r"format must be given, or the path end with one of \.tflite, \.onnx"),
    "another suffix": ({"format": "litert"}, r"must end with \.tflite for format='litert', got path=.*network\.onnx"),
    "a quantisation's name": ({"quantization": "int9"}, r"got quantization='int9'; did you mean 'int8'\?"),
    "a quantisation of others": ({"quantization": "float16"}, r"'float16' exists for litert, not for format='onnx'"),
    "int8 without images": ({"quantization": "int8"}, r"quantization='int8' needs representative_data: a hundred"),
    "integers elsewhere": (
        {"integer_io": True},
        "integer_io needs format='litert' and quantization='int8', got 'onnx'",
    ),
    "batch": ({"batch_size": 0}, r"batch_size must be a whole number of at least 1, got batch_size=0"),
    "size": ({"image_size": (1, 2, 3)}, r"image_size must be a number, \(height, width\), 'any' or None"),
    "tolerance": ({"tolerance": -1}, r"tolerance must be a positive number, got tolerance=-1"),
    "no images": ({"images": []}, r"images must be a list of at least one image"),
    "normalised images": ({"images": [np.full((9, 9, 3), -1.0)]}, r"images must be files or arrays .* from 0 to 255"),
    "labels": ({"labels": [1]}, r"labels must be the classes of images, as many as there are, got 1 for no images"),
}


@pytest.mark.backend_independent
@pytest.mark.parametrize("case", REFUSED)
def test_refuses(case, network, tmp_path):
    arguments, message = REFUSED[case]
    arguments = {"path": "network.onnx", **arguments}
    with pytest.raises(ValueError, match=message):
        export_model(network, tmp_path / arguments.pop("path"), **arguments)
    assert not list(tmp_path.iterdir())


@pytest.mark.backend_independent
def test_refuses_places_and_models(network, tmp_path, monkeypatch):
    (tmp_path / "there.onnx").write_text("")
    with pytest.raises(FileExistsError, match=r"path must not exist yet, got path=.*there\.onnx"):
        export_model(network, tmp_path / "there.onnx")
    (tmp_path / "there.bin").write_text("")
    with pytest.raises(FileExistsError, match=r"path must not exist yet, got .*there\.bin"):
        export_model(network, tmp_path / "there.xml")
    with pytest.raises(FileNotFoundError, match=r"path must be in a folder that exists"):
        export_model(network, tmp_path / "no" / "network.onnx")
    with monkeypatch.context() as patch:
        patch.setattr(os, "access", lambda *_: False)  # root may write anywhere
        with pytest.raises(PermissionError, match=r"path must be in a folder that can be written"):
            export_model(network, tmp_path / "network.onnx")
    with pytest.raises(ValueError, match=r"model must be a Keras model of one image, got str"):
        export_model("network.keras", tmp_path / "network.onnx")
    with pytest.raises(ValueError, match=r"model must take a batch of images, of rank 4, got input_shape=\(None, 3\)"):
        export_model(keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)]), tmp_path / "network.onnx")
    with pytest.raises(ValueError, match=r"raw_pixels=True needs to know how pixels are normalised: set model.pixels"):
        export_model(small("SplitMixerI"), tmp_path / "network.onnx", raw_pixels=True)
    with pytest.raises(ValueError, match=r"a batch as the network takes it, \(images, 64, 64, 3\), .* \(2, 9\)"):
        export_model(small("SplitMixerI"), tmp_path / "network.onnx", images=np.zeros((2, 9)))
    with pytest.raises(ValueError, match=r"image_size must be the network's, \(16, 16\), got image_size=8"):
        export_model(small("SplitMixerI", input_shape=(16, 16, 3)), tmp_path / "network.onnx", image_size=8)


def test_only_layers_of_others_are_written_as_they_are(network, monkeypatch, tmp_path):
    quantized = small("SplitMixerI", input_shape=(16, 16, 3))
    quantized.quantize("int8")
    with pytest.raises(
        ValueError, match=r"fold takes a network before it is quantised, got 'splitmixer_i_12_2' in int8"
    ):
        export_model(quantized, tmp_path / "network.keras")

    def fail(*_):
        raise ValueError("a defect of ours")

    monkeypatch.setattr("keras_mixers.export.folding.Writer.network", fail)
    with pytest.raises(ValueError, match="a defect of ours"):  # and no file that needs this library
        export_model(network, tmp_path / "network.keras")
    assert not list(tmp_path.iterdir())


@on_torch
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_axes_of_onnx_have_names(data_format, photographs, tmp_path):
    import onnx

    network = small("SplitMixerI", data_format=data_format)
    network.pixels = PIXELS
    for image_size in (None, "any"):
        path = tmp_path / f"{image_size}.onnx"
        export_model(network, path, images=photographs, image_size=image_size)
        graph = onnx.load(path).graph
        axes = [[axis.dim_param or axis.dim_value for axis in end.type.tensor_type.shape.dim]
                for end in (*graph.input, *graph.output)]  # fmt: skip
        sides = ["height", "width"] if image_size == "any" else [16, 16]
        image = [*sides, 3] if data_format == "channels_last" else [3, *sides]
        assert axes == [["batch", *image], ["batch", 5]]


@pytest.mark.backend_independent
def test_a_missing_package_is_named_with_its_extra(network, monkeypatch, tmp_path):
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "openvino" else find(name))
    with pytest.raises(
        ImportError, match=r"format='openvino' needs openvino: pip install \"keras-mixers\[openvino\]\""
    ):
        export_model(network, tmp_path / "network.xml")


@pytest.mark.backend_independent
def test_metadata_of_what_is_none(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"There is no exported network at"):
        read_metadata(tmp_path / "network.onnx")
    (tmp_path / "network.tflite").write_text("not one")
    with pytest.raises(ValueError, match=r"does not say what it is: export_model did not write it"):
        read_metadata(tmp_path / "network.tflite")


def test_the_report_says_it_in_a_sentence(tmp_path):
    report = ExportReport(
        tmp_path / "a.tflite", "litert", "int8", "jax", 0.01, 0.995, 0.9, 0.91, 200, 1_234_000, 0.0021
    )
    assert str(report).endswith(
        "a.tflite: litert (int8), 1.23 MB, 2.10 ms for an image; right for 90.0 % (the network: 91.0 %), the same "
        "class for 99.5 % of 200 images, outputs within 1.0e-02 of the network's"
    )
