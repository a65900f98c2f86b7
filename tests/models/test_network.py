"""A line of layers: it is a functional model like any other, and lets go of each feature map once it is used."""

import contextlib
import gc
import weakref

import keras
import numpy as np
import pytest

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


@pytest.mark.any_backend
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
    assert (model.pixels, model.class_names) == (keras_mixers.find_preset("splitmixer_i_256_8").pixels, None)
    model.class_names = ("cat", "dog")
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert (again.pixels, again.class_names) == (model.pixels, ("cat", "dog"))
    assert keras_mixers.SplitMixerI(8, 1).pixels is None
