"""A depthwise convolution for XLA on CPUs, which has none that is fast: a sum of shifted images, with its gradient."""

import functools

import jax
from jax import lax
from jax import numpy as jnp


@jax.custom_vjp
def shifted_products(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Returns the depthwise convolution of x (batch, height, width, channels), "same", with (rows, columns, channels).

    In mixed precision the products are summed up in float32.
    """
    rows, columns, _ = kernel.shape
    padding = [((rows - 1) // 2, rows // 2), ((columns - 1) // 2, columns // 2)]
    return _materialized(functools.partial(_sum_of_products, padding=padding), x, kernel)


def _forward(x, kernel):
    return shifted_products(x, kernel), (x, kernel)


def _backward(saved, gradient):
    x, kernel = saved
    rows, columns, channels = kernel.shape
    padding = [((rows - 1) // 2, rows // 2), ((columns - 1) // 2, columns // 2)]
    # For the image it is the convolution of the gradient with the kernel turned around.
    turned = functools.partial(_sum_of_products, padding=[(after, before) for before, after in padding])
    for_x = _materialized(turned, gradient, kernel[::-1, ::-1])

    # For the kernel: each position of the image adds its gradient times its surroundings. XLA sums this up in a loop
    # three times faster than it reduces the product of two images, once for each number of the kernel.
    padded = jnp.pad(x, [(0, 0), *padding, (0, 0)])
    batch, height, width, _ = x.shape

    def add_position(position, total):
        i, j = position // width, position % width
        around = lax.dynamic_slice(padded, (0, i, j, 0), (batch, rows, columns, channels))
        here = lax.dynamic_slice(gradient, (0, i, j, 0), (batch, 1, 1, channels))
        return total + around.astype("float32") * here.astype("float32")

    total = lax.fori_loop(0, height * width, add_position, jnp.zeros((batch, rows, columns, channels), "float32"))
    return for_x, total.sum(0).astype(kernel.dtype)


shifted_products.defvjp(_forward, _backward)


def _sum_of_products(x, kernel, padding):
    padded = jnp.pad(x, [(0, 0), *padding, (0, 0)])
    total = 0.0
    for i in range(kernel.shape[0]):
        rows = lax.slice_in_dim(padded, i, i + x.shape[1], axis=1)
        for j in range(kernel.shape[1]):
            shifted = lax.slice_in_dim(rows, j, j + x.shape[2], axis=2)
            total = total + shifted.astype("float32") * kernel[i, j].astype("float32")
    return total.astype(x.dtype)


def _materialized(convolve, x, kernel):
    """Computes `convolve(x, kernel)` from an `x` that lies in memory.

    XLA would otherwise fuse what computes x, such as a GELU, into each of the products, and compute it as many times.
    What a branch takes is computed before; that the two branches are the same, it does not see.
    """
    return lax.cond(kernel[0, 0, 0] > 0, convolve, lambda *operands: convolve(*operands), x, kernel)
