"""Builds, trains, saves, loads and exports a network with nothing but the package and one backend: `KERAS_BACKEND`."""

import sys
import tempfile
from pathlib import Path

import keras
import numpy as np

import keras_mixers
from keras_mixers.training import AdamW, TriangularSchedule

keras.utils.set_random_seed(0)
rng, labels = np.random.default_rng(0), np.arange(96) % 3
images = rng.uniform(0, 80, (96, 16, 16, 3))
images[np.arange(96), :, :, labels] += 120
images = images.astype("float32") / 127.5 - 1

model = keras_mixers.SplitMixerI(
    dim=16, blocks=2, kernel_size=3, num_classes=3, input_shape=(16, 16, 3), data_format="channels_last"
)
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
model.compile(AdamW(TriangularSchedule(0.02, epochs=25, steps_per_epoch=3)), loss, metrics=["accuracy"])
model.fit(images, labels, batch_size=32, epochs=25, verbose=0)
found = model.evaluate(images, labels, verbose=0, return_dict=True)
assert found["accuracy"] > 0.9, found

with tempfile.TemporaryDirectory() as folder:
    model.save(Path(folder, "model.keras"))
    loaded = keras.models.load_model(Path(folder, "model.keras"))
    np.testing.assert_allclose(*(each.predict(images, verbose=0) for each in (model, loaded)), rtol=1e-5, atol=1e-5)
    report = keras_mixers.export_model(model, Path(folder, "plain.keras"), images=images[:8])
    if keras.backend.backend() == "tensorflow":
        report = keras_mixers.export_model(model, Path(folder, "saved_model"), images=images[:8])
    if keras.backend.backend() == "torch":
        report = keras_mixers.export_model(model, Path(folder, "model.pt2"), images=images[:8])
versions = f"keras {keras.__version__}, {keras.backend.backend()}, Python {sys.version.split()[0]}"
print(f"{versions}: accuracy {found['accuracy']:.3f}; {report}")
