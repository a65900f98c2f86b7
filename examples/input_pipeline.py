"""Does the input keep up? Images per second of each recipe's pipeline, and how long training waits for them.

    KERAS_BACKEND=jax python examples/input_pipeline.py --data-dir ~/tensorflow_datasets --folder photos/train

CIFAR recipes read TFDS's CIFAR-10, the others a folder of photographs, one folder per class. Two cores (Intel Xeon,
AVX-512), CIFAR-10 and Imagenette's 1,000 JPEGs: see docs/speed.md.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # before TensorFlow starts: it would tell of itself
if os.environ.get("KERAS_BACKEND", "tensorflow") != "tensorflow":
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # it feeds the images only
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # PyTorch's threads do not spin while they wait

import argparse
import itertools
import time
from importlib.util import find_spec

import keras
import numpy as np

import keras_mixers
from keras_mixers.data import Augmentation, load_folder, load_tfds, train_batches
from keras_mixers.models import ImageSpec
from keras_mixers.training import AdamW, get_recipe

KERAS_CV = ("keras_cv.RandAugment(value_range=(0, 255))", "keras_cv.MixUp()", "keras_cv.CutMix()")
# Recipe: images, their size, batch, augmentation.
RECIPES = {
    "SplitMixer CIFAR": ("cifar10", 32, 512, get_recipe("cifar10_splitmixer_i").augmentation),
    "ConvMixer CIFAR, 100 epochs": ("cifar10", 32, 512, get_recipe("cifar10_convmixer_100_epochs").augmentation),
    "RandAugment, MixUp, CutMix": ("cifar10", 32, 512, Augmentation(rand_augment=(3, 15), mixup=0.2, cutmix=1.0)),
    "the same by KerasCV": ("cifar10", 32, 512, Augmentation(layers=KERAS_CV)),
    "SplitMixer Food101": ("folder", 224, 128, get_recipe("food101_splitmixer_i").augmentation),
    "ConvMixer ImageNet": ("folder", 224, 128, get_recipe("imagenet_convmixer_1536_20").augmentation),
}


def images_per_second(batches, seconds: float) -> float:
    """Reads batches for a number of seconds, after the first one, which fills the caches."""
    endless = itertools.chain.from_iterable(itertools.repeat(batches))
    next(endless)
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        count += len(next(endless)[0])
    return count / (time.perf_counter() - start)


def waiting(batches, seconds: float) -> tuple[float, float]:
    """Trains SplitMixer-I-256/8: images per second, and the share of the time that training waits for a batch."""
    model = keras_mixers.create_model("splitmixer_i_256_8", data_format="channels_last")
    model.compile(AdamW(0.01), keras.losses.CategoricalCrossentropy(from_logits=True))
    endless = itertools.chain.from_iterable(itertools.repeat(batches))
    model.train_on_batch(*map(np.asarray, next(endless)))  # compiles
    start, count, waited = time.perf_counter(), 0, 0.0
    while time.perf_counter() - start < seconds:
        before = time.perf_counter()
        images, labels = next(endless)
        waited += time.perf_counter() - before
        model.train_on_batch(np.asarray(images), np.asarray(labels))
        count += len(images)
    total = time.perf_counter() - start
    return count / total, waited / total


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--data-dir", help="where TensorFlow Datasets keeps CIFAR-10")
parser.add_argument("--folder", help="photographs, one folder per class; without it, only CIFAR-10 is read")
parser.add_argument("--batch-size", type=int, help="instead of each recipe's own")
parser.add_argument("--seconds", type=float, default=10, help="for each measurement")
args = parser.parse_args()

for name, (source, size, batch_size, augmentation) in RECIPES.items():
    if (source == "folder" and args.folder is None) or (augmentation.layers and find_spec("keras_cv") is None):
        continue
    images = load_folder(args.folder) if source == "folder" else load_tfds("cifar10", "train", args.data_dir)
    spec = ImageSpec(size, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    batches = train_batches(images, args.batch_size or batch_size, spec, augmentation=augmentation)
    print(f"{name}: {images_per_second(batches, args.seconds):,.0f} images/s", flush=True)
    if name == "SplitMixer CIFAR":
        trained, share = waiting(batches, 3 * args.seconds)
        print(f"{name}, in training: {trained:,.0f} images/s, of which {share:.1%} of the time for images", flush=True)
