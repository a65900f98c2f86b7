"""A depthwise convolution for XLA on CPUs, which has none that is fast: a sum of shifted images, with its gradient."""

import jax
from jax import lax
from jax import numpy as jnp


@jax.custom_vjp
def shifted_products(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Returns the depthwise convolution of x (batch, height, width, channels), "same", with (rows, columns, channels).

    In mixed precision the products are summed up in float32.
    """
    return _sum_of_products(_padded(x, _same(kernel)), kernel)


def _forward(x, kernel):
    return shifted_products(x, kernel), (x, kernel)


def _backward(saved, gradient):
    x, kernel = saved
    rows, columns, channels = kernel.shape
    # For the image it is the convolution of the gradient with the kernel turned around.
    turned = [(after, before) for before, after in _same(kernel)]
    for_x = _sum_of_products(_padded(gradient, turned), kernel[::-1, ::-1])

    # For the kernel: each position of the image adds its gradient times its surroundings. XLA sums this up in a loop
    # three times faster than it reduces the product of two images, once for each number of the kernel.
    padded = _padded(x, _same(kernel))
    batch, height, width, _ = x.shape

    def add_position(position, total):
        i, j = position // width, position % width
        around = lax.dynamic_slice(padded, (0, i, j, 0), (batch, rows, columns, channels))
        here = lax.dynamic_slice(gradient, (0, i, j, 0), (batch, 1, 1, channels))
        return total + around.astype("float32") * here.astype("float32")

    total = lax.fori_loop(0, height * width, add_position, jnp.zeros((batch, rows, columns, channels), "float32"))
    return for_x, total.sum(0).astype(kernel.dtype)


shifted_products.defvjp(_forward, _backward)


def _same(kernel):
    """The zeros before and behind height and width with which an image keeps its size."""
    return [((size - 1) // 2, size // 2) for size in kernel.shape[:2]]


def _padded(x, padding):
    return jnp.pad(x, [(0, 0), *padding, (0, 0)])


def _sum_of_products(padded, kernel):
    """Sums up the products of a padded image that lies in memory.

    XLA would otherwise fuse what computes it, such as a GELU, into each of the products, and compute it as many times;
    with only the padding fused, each product would look whether it lies in the image. What a branch takes is computed
    before; that the two branches are the same, XLA does not see.
    """
    return lax.cond(kernel[0, 0, 0] > 0, _add_products, lambda *operands: _add_products(*operands), padded, kernel)


def _add_products(padded, kernel):
    height, width = (padded.shape[axis] - kernel.shape[axis - 1] + 1 for axis in (1, 2))
    total = 0.0
    for i in range(kernel.shape[0]):
        rows = lax.slice_in_dim(padded, i, i + height, axis=1)
        for j in range(kernel.shape[1]):
            shifted = lax.slice_in_dim(rows, j, j + width, axis=2)
            total = total + shifted.astype("float32") * kernel[i, j].astype("float32")
    return total.astype(padded.dtype)
