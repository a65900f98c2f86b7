"""A patch embedding that starts as a whitening of the images' patches."""

import keras
import numpy as np

from keras_mixers.data import Images, eval_batches
from keras_mixers.models import ImageSpec

IMAGES, SMALLEST = 5_000, 1e-3


def whiten_patches(model: keras.Model, images: Images, pixels: ImageSpec, seed: int) -> None:
    """Has the patch embedding of a network give uncorrelated channels of variance 1 on `images`, at its start.

    With C = V diag(λ) Vᵀ the covariance of the patches, the kernel is R diag(1 / √(λ + ε)) Vᵀ, where the rows of R are
    random directions.

    Args:
        model: a network whose embedding is named `patch_embed`.
        images: those whose patches are looked at, the first 5,000.
        pixels: how they are cut and normalised.
        seed: what the directions are drawn with.
    """
    kernel, bias = model.get_layer("patch_embed").convolution.trainable_variables
    size, _, channels, dim = kernel.shape
    batch, _ = next(iter(eval_batches(images, IMAGES, pixels)))
    height, width = (length // size for length in batch.shape[1:3])
    patches = np.reshape(batch[:, : height * size, : width * size], (-1, height, size, width, size, channels))
    patches = patches.swapaxes(2, 3).reshape(-1, size * size * channels)
    values, vectors = np.linalg.eigh(np.cov(patches, rowvar=False))
    whitening = vectors / np.sqrt(values + SMALLEST)  # (inputs, directions)
    directions = np.random.default_rng(seed).normal(size=(whitening.shape[1], dim))
    directions /= np.linalg.norm(directions, axis=0)
    weights = whitening @ directions
    kernel.assign(weights.reshape(kernel.shape))
    bias.assign(-patches.mean(0) @ weights)
