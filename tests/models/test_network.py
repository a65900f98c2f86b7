"""A line of layers: it is a functional model like any other, and lets go of each feature map once it is used."""

import contextlib
import copy
import functools
import gc
import pickle
import weakref

import keras
import numpy as np
import pytest
from small_networks import for_every_builder, small

import keras_mixers


@pytest.fixture
def model(randomize):
    return randomize(keras_mixers.SplitMixerI(8, 3, 3, 2, 5, input_shape=(8, 8, 3), data_format="channels_last"))


@pytest.fixture
def images(rng):
    return rng.standard_normal((4, 8, 8, 3)).astype("float32")


def array(tensor):
    return keras.ops.convert_to_numpy(tensor)


def test_is_what_keras_makes_of_the_same_layers(model, images):
    functional = keras.Model(model.input, model.output)
    assert type(functional) is not type(model)
    for given in (images, [images], {"image": images}):
        np.testing.assert_array_equal(array(model(given, training=False)), array(functional(images, training=False)))
    np.testing.assert_allclose(model.predict(images, verbose=0), array(model(images)), rtol=1e-5, atol=1e-6)


def test_layers_know_whether_they_train(model, images):
    before = array(model.get_layer("patch_embed").norm.moving_mean).copy()
    in_training = array(model(images, training=True))
    assert np.abs(in_training - array(model(images, training=False))).max() > 0.01
    assert np.abs(array(model.get_layer("patch_embed").norm.moving_mean) - before).max() > 0.01


def test_survives_files_and_clones(model, images, tmp_path):
    model.save(tmp_path / "model.keras")
    again, clone = keras.models.load_model(tmp_path / "model.keras"), keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    for other in (again, clone):
        assert type(other) is type(model)
        np.testing.assert_array_equal(array(other(images, training=False)), array(model(images, training=False)))


@pytest.mark.backend_independent
def test_lets_go_of_what_its_layers_give(model, images):
    given, alive = [], []

    def watched(call):
        def watch(*args, **kwargs):
            gc.collect()
            alive.append(sum(reference() is not None for reference in given))
            output = call(*args, **kwargs)
            given.append(weakref.ref(output))
            return output

        return watch

    for layer in model.layers[1:]:
        layer.call = watched(layer.call)
    scope = contextlib.nullcontext()
    if keras.backend.backend() == "torch":
        import torch

        scope = torch.no_grad()  # as in predict: gradients need what layers give
    with scope:
        model(images, training=False)
    assert len(given) == 9
    # Only the input of a layer, which is the output of the one before it, is there when it is called.
    assert max(alive) == 1


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="torch.export is PyTorch's")
@pytest.mark.parametrize("name", ["ConvMixer", "SplitMixerI", "SplitMixerV"])
def test_torch_exports_it(name, images, randomize):
    import torch

    model = randomize(getattr(keras_mixers, name)(8, 2, 3, 2, 5, data_format="channels_last"))
    exported = torch.export.export(model, (torch.from_numpy(images),)).module()
    np.testing.assert_allclose(array(exported(torch.from_numpy(images))), array(model(images)), rtol=1e-5, atol=1e-6)


def test_knows_its_pixels_and_classes_after_it_was_saved(tmp_path):
    model = keras_mixers.create_model("splitmixer_i_256_8", dim=8, blocks=1, num_classes=2)
    assert (model.pixels, model.class_names) == (keras_mixers.get_preset("splitmixer_i_256_8").pixels, None)
    model.class_names = ("cat", "dog")
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert (again.pixels, again.class_names) == (model.pixels, ("cat", "dog"))
    assert keras_mixers.SplitMixerI(8, 1).pixels is None


@pytest.mark.parametrize("dtype", ["uint8", "int32", "bool"])
@pytest.mark.parametrize("raw", [False, True])
def test_takes_integers_as_keras_does(dtype, raw, rng):
    pixels = keras_mixers.get_preset("splitmixer_i_256_8").pixels
    model = keras_mixers.SplitMixerI(8, 2, 3, 2, 5, preprocessing=pixels if raw else None, data_format="channels_last")
    images, labels = rng.integers(0, 256, (4, 8, 8, 3)).astype(dtype), np.zeros(4, "int32")
    expected = array(model(images.astype("float32"), training=False))
    np.testing.assert_array_equal(array(model(images, training=False)), expected)
    np.testing.assert_allclose(model.predict(images, verbose=0), expected, rtol=1e-5, atol=1e-5)
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    of_integers = model.evaluate(images, labels, verbose=0)
    np.testing.assert_allclose(of_integers, model.evaluate(images.astype("float32"), labels, verbose=0), rtol=1e-5)
    assert np.isfinite(model.fit(images, labels, verbose=0).history["loss"]).all()


def copies(model, folder):
    """Everything that Keras makes another model of a model by."""
    model.save(folder / "model.keras")
    return {
        "file": keras.models.load_model(folder / "model.keras"),
        "clone": keras.models.clone_model(model),
        "deepcopy": copy.deepcopy(model),
        "pickle": pickle.loads(pickle.dumps(model)),
        "config": type(model).from_config(model.get_config()),
    }


@pytest.mark.filterwarnings("error:Skipping variable loading")
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float32"])
def test_knows_its_precision_in_every_copy(policy, images, tmp_path):
    model = keras_mixers.SplitMixerI(8, 2, 3, 2, 5, dtype=policy, data_format="channels_last")
    model.compile("adamw", "mse")
    model.fit(images, np.zeros((4, 5), "float32"), verbose=0)
    scales = policy == "mixed_float16"
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer) == scales
    for kind, other in copies(model, tmp_path).items():
        assert other.dtype_policy.name == policy, kind
        assert other.get_layer("head").compute_dtype == "float32", kind
        if kind in ("file", "deepcopy", "pickle"):  # a clone starts its training anew
            assert len(other.optimizer.variables) == len(model.optimizer.variables), kind
            for saved, read in zip(model.optimizer.variables, other.optimizer.variables, strict=True):
                np.testing.assert_array_equal(array(read), array(saved), err_msg=f"{kind} {saved.path}")
        other.compile("adamw", "mse")
        assert isinstance(other.optimizer, keras.optimizers.LossScaleOptimizer) == scales, kind
    folded = keras_mixers.fold(model)  # computes in float32, where no loss has to be scaled
    assert {layer.compute_dtype for layer in folded.layers} == {"float32"}


def test_knows_its_pixels_and_classes_in_every_copy(tmp_path):
    model = keras_mixers.create_model("splitmixer_i_256_8", dim=8, blocks=1, num_classes=2)
    model.class_names = ("cat", "dog")
    for kind, other in copies(model, tmp_path).items():
        assert (other.pixels, other.class_names) == (model.pixels, ("cat", "dog")), kind
        assert [[layer.name for layer in block] for block in other.blocks] == [["block_0_spatial", "block_0_channel"]]
    original = weakref.ref(model)
    clone = keras.models.clone_model(model)
    del model, other
    keras.backend.clear_session()
    gc.collect()
    assert original() is None
    assert clone.class_names == ("cat", "dog")


def test_refuses_with_one_sentence_whoever_calls_it():
    model = keras_mixers.SplitMixerI(8, 2, 3, 4, 5, name="small", data_format="channels_last")
    too_small, single = np.zeros((1, 3, 9, 3), "float32"), np.zeros((9, 9, 3), "float32")
    with pytest.raises(ValueError, match=r"^'small' takes .*, got shape \(9, 9, 3\); .* batch axis in front.$"):
        model(single)
    # Last, as Keras on JAX keeps nothing of a model whose predict has failed.
    for call in (model, keras.Sequential([model]), functools.partial(model.predict, verbose=0)):
        with pytest.raises(ValueError, match="^An image must be at least one patch high .* got 3 pixels") as refusal:
            call(too_small)
        assert "\n" not in str(refusal.value)


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="torch.compile is PyTorch's")
@pytest.mark.parametrize("name", ["ConvMixer", "SplitMixerI"])
def test_torch_compiles_its_training_for_sizes_that_vary(name, rng):
    import torch

    if torch.__version__ < (2, 13):
        pytest.skip("PyTorch before 2.13 cannot order strides of symbolic sizes")
    model = getattr(keras_mixers, name)(8, 1, 3, 2, 5, data_format="channels_last")
    compiled = torch.compile(lambda images: model(images, training=True), dynamic=True)
    for batch, side in ((4, 8), (3, 12)):
        images = torch.from_numpy(rng.standard_normal((batch, side, side, 3)).astype("float32"))
        model.zero_grad()
        compiled(images).square().sum().backward()
        gradients = [weight.value.grad.clone() for weight in model.trainable_weights]
        model.zero_grad()
        model(images, training=True).square().sum().backward()
        for gradient, weight in zip(gradients, model.trainable_weights, strict=True):
            np.testing.assert_allclose(gradient, weight.value.grad, rtol=1e-3, atol=1e-3, err_msg=weight.path)


def test_refuses_a_file_that_keras_could_not_load(model, tmp_path):
    for name in ("model.h5", "model.hdf5"):
        with pytest.raises(ValueError, match=f"^filepath must end with .keras, got filepath=.*{name}"):
            model.save(tmp_path / name)
    assert not list(tmp_path.iterdir())
    model.save_weights(tmp_path / "model.weights.h5")


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="elsewhere Keras needs jax2onnx or tf2onnx")
@pytest.mark.filterwarnings("ignore")
@for_every_builder
def test_keras_exports_it_to_onnx_before_it_was_called(builder, images, randomize, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    model = randomize(small(builder, input_shape=(8, 8, 3)))
    model.export(tmp_path / "model.onnx", format="onnx", verbose=False)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    outputs = session.run(None, {session.get_inputs()[0].name: images})[0]
    np.testing.assert_allclose(outputs, array(model(images, training=False)), rtol=1e-4, atol=1e-5)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="elsewhere TensorFlow's version has a say")
def test_keras_exports_it_as_a_saved_model(model, images, tmp_path):
    import tensorflow as tf

    model.export(tmp_path / "model", verbose=False)
    saved = tf.saved_model.load(str(tmp_path / "model"))
    outputs = saved.serve(images).numpy()
    np.testing.assert_allclose(outputs, array(model(images, training=False)), rtol=1e-4, atol=1e-5)
