"""The first minute: a small SplitMixer learns to read scikit-learn's handwritten digits, without a download.

    KERAS_BACKEND=jax python examples/digits.py

1,797 images of 8 x 8 pixels, of which every fifth is kept for the test. The output directory gets `model.keras` and
`curve.png`, the accuracy of each epoch.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # PyTorch's threads do not spin while they wait

import argparse
import math
import time
from pathlib import Path

import keras
import matplotlib
import numpy as np
from sklearn.datasets import load_digits

import keras_mixers
from keras_mixers.training import AdamW, TriangularSchedule, keep_memory

matplotlib.use("Agg")  # a picture in a file, with or without a screen
import matplotlib.pyplot as plt  # noqa: E402

EPOCHS, BATCH_SIZE = 15, 64

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--output-dir", type=Path, default=Path("runs/digits"))
output_dir = parser.parse_args().output_dir
output_dir.mkdir(parents=True, exist_ok=True)
keep_memory()  # on a CPU it then computes faster
keras.utils.set_random_seed(0)

# Grey values 0-16 become one channel of zero mean.
digits = load_digits()
images = (digits.images[..., None] / 8 - 1).astype("float32")
in_test = np.arange(len(images)) % 5 == 0
x_train, y_train = images[~in_test], digits.target[~in_test]
x_test, y_test = images[in_test], digits.target[in_test]

model = keras_mixers.SplitMixerI(
    dim=48, blocks=3, kernel_size=3, patch_size=1, input_shape=(8, 8, 1), data_format="channels_last"
)
model.summary()
steps_per_epoch = math.ceil(len(x_train) / BATCH_SIZE)
model.compile(
    optimizer=AdamW(TriangularSchedule(0.02, EPOCHS, steps_per_epoch), weight_decay=0.005),
    loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    metrics=["accuracy"],
)
start = time.perf_counter()
history = model.fit(
    x_train, y_train, batch_size=BATCH_SIZE, epochs=EPOCHS, validation_data=(x_test, y_test), verbose=2
).history
seconds = time.perf_counter() - start
model.save(output_dir / "model.keras")

figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
for key, label in (("accuracy", "training"), ("val_accuracy", "test")):
    axes.plot(range(1, EPOCHS + 1), [100 * value for value in history[key]], marker="o", markersize=3, label=label)
axes.set(
    title=f"SplitMixer-I-48/3 on handwritten digits ({keras.backend.backend()})", xlabel="epoch", ylabel="accuracy (%)"
)
axes.grid(alpha=0.3)
axes.legend()
figure.savefig(output_dir / "curve.png", dpi=150)
print(f"Test accuracy {history['val_accuracy'][-1]:.4f} in {seconds:.0f} s; see {output_dir}/curve.png")
