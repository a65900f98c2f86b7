"""A network leaves Keras: trained on handwritten digits, folded, and written as a SavedModel and for LiteRT.

    KERAS_BACKEND=jax python examples/export.py

Both files are then run by what runs them elsewhere, TensorFlow and ai-edge-litert, on an image that the network has not
seen.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # PyTorch's threads do not spin while they wait

import argparse
from pathlib import Path

import keras
import numpy as np
from sklearn.datasets import load_digits

import keras_mixers
from keras_mixers.training import AdamW, keep_memory

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--output-dir", type=Path, default=Path("runs/export"))
output_dir = parser.parse_args().output_dir
output_dir.mkdir(parents=True, exist_ok=True)
keep_memory()  # on a CPU it then computes faster
keras.utils.set_random_seed(0)

# Train.
digits = load_digits()
images = (digits.images[..., None] / 8 - 1).astype("float32")
x_train, y_train, x_test, y_test = images[:1500], digits.target[:1500], images[1500:], digits.target[1500:]
model = keras_mixers.SplitMixerI(
    dim=48, blocks=3, kernel_size=3, patch_size=1, input_shape=(8, 8, 1), data_format="channels_last"
)
model.compile(
    optimizer=AdamW(0.01, weight_decay=0.005),
    loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    metrics=["accuracy"],
)
model.fit(x_train, y_train, batch_size=64, epochs=5, verbose=2)

# Fold: `export_model` does it by itself; this shows what it does.
norms = [
    sum("BatchNorm" in type(layer).__name__ for layer in each._flatten_layers())
    for each in (model, keras_mixers.fold(model))
]
print(f"{norms[0]} norms, {norms[1]} of them left once folded")

# Export: each file is opened and compared before the call returns.
for path in ("saved_model", "digits.tflite"):
    format = None if path.endswith(".tflite") else "saved_model"
    print(keras_mixers.export_model(model, output_dir / path, format, images=x_test, labels=y_test))

# Run both, without Keras, on one image.
import tensorflow as tf  # noqa: E402
from ai_edge_litert.interpreter import Interpreter  # noqa: E402

image = x_test[:1]
serve = tf.saved_model.load(output_dir / "saved_model").signatures["serving_default"]
run = Interpreter(str(output_dir / "digits.tflite")).get_signature_runner()
outputs = {
    f"Keras on {keras.backend.backend()}": keras.ops.convert_to_numpy(model(image)),
    "SavedModel": serve(image=tf.constant(image))["logits"].numpy(),
    "LiteRT": run(image=image)["logits"],
}
for name, logits in outputs.items():
    print(f"{name}: a {logits.argmax()}, logits {np.array2string(logits[0], precision=3, max_line_width=120)}")
