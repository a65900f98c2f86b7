"""What PyTorch computes differently: its own convolutions and norms, and in place where no gradients are recorded.

To overwrite a tensor that nobody else holds saves a pass over memory and an allocation, which costs about as much as a
GELU.
"""

import contextlib
import contextvars
import platform
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import keras
import torch
import torch.distributed as dist
from keras import ops

from keras_mixers.backends import contract

__all__ = [
    "activate",
    "adamw",
    "add_branch",
    "batch_norm",
    "compiled",
    "depthwise_native",
    "device",
    "gpu_name",
    "keep_memory",
    "layer_norm",
    "mix_spans",
    "peak_memory",
    "pointwise_conv",
    "post_norm",
    "split",
    "token_dense",
    "value_and_gradients",
    "wait_for",
]


def device() -> str:
    if assumed := contract.assumed_device():
        return assumed
    kind = ops.convert_to_tensor(0.0).device.type  # which KERAS_TORCH_DEVICE and keras.device choose
    return "gpu" if kind == "cuda" else kind


def _of_accelerator(name: str) -> Callable | None:
    """Returns a function of torch.cuda or torch.xpu, whichever computes; None where there is none of that name."""
    kind = device()
    return getattr(getattr(torch, "cuda" if kind == "gpu" else kind, None), name, None)


def gpu_name() -> str:
    name = _of_accelerator("get_device_name")
    return "" if device() == "cpu" else name() if name else device()


def peak_memory() -> int:
    peak = _of_accelerator("max_memory_allocated")
    return peak() if peak else contract.peak_memory()


def wait_for(variables: Sequence[Any] = ()) -> None:
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()


def keep_memory() -> bool:
    return device() == "cpu" and contract.keep_freed_memory()


def compiled(function: Callable) -> Callable:
    return torch.no_grad()(function)


def value_and_gradients(function: Callable, inputs: Sequence[Any], upstream: Any = 1.0) -> tuple[Any, list[Any]]:
    with torch.enable_grad():
        inputs = [ops.convert_to_tensor(value).detach().requires_grad_() for value in inputs]
        value = function(*inputs)
        upstream = ops.convert_to_tensor(upstream, value.dtype)
        return value.detach(), list(torch.autograd.grad(value, inputs, upstream))


def depthwise_native(x: Any, kernel: Any, data_format: str, bias: Any = None) -> Any:
    """Keras's operation around this one copies the image to pad it, and adds no bias."""
    # torch.compile cannot compile the gradient of a transposed image's convolution for sizes that vary, and for fixed
    # sizes it computes a training step with Keras's operation in a third of the time.
    if torch.compiler.is_dynamo_compiling():
        return contract.depthwise_native(x, kernel, data_format, bias)
    x, kernel = ops.convert_to_tensor(x), ops.convert_to_tensor(kernel)
    bias = bias if bias is None else ops.convert_to_tensor(bias)
    if data_format == "channels_first":
        return _depthwise(x, kernel, bias)

    def convolve(x, kernel):
        # A transposed image with its channels last is what PyTorch calls torch.channels_last; it needs no copy.
        return _depthwise(x.permute(0, 3, 1, 2), kernel, bias).permute(0, 2, 3, 1)

    return contract.with_rows_as_images(convolve, x, kernel) if x.is_cpu else convolve(x, kernel)


def _depthwise(x, kernel, bias):
    rows, columns = kernel.shape[:2]
    slow = x.is_cpu and x.dtype == torch.bfloat16 and min(rows, columns) > 3 and rows % 2 and columns % 2
    if slow and torch.is_grad_enabled() and not torch.compiler.is_compiling():
        return DepthwiseInBFloat16.apply(x, kernel, bias)
    return _convolve(x, kernel, bias)


def _convolve(x, kernel, bias):
    return torch.nn.functional.conv2d(x, kernel.permute(2, 3, 0, 1), bias, padding="same", groups=x.shape[1])


MOST_POSITIONS = 256  # of a matrix, up to which the gradient for a kernel is faster as products of matrices


class DepthwiseInBFloat16(torch.autograd.Function):
    """Convolves; its gradient for the kernel takes a seventh to three quarters of the time of PyTorch's own on a CPU.

    For kernels of 3 × 3 and of one column PyTorch's own is faster. Forward-mode differentiation is left to
    `depthwise_shifted`.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: torch.Tensor, kernel: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        return _convolve(x, kernel, bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        ctx.save_for_backward(*inputs[:2])

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, kernel = ctx.saved_tensors
        for_x, for_kernel, for_bias = ctx.needs_input_grad
        options = {"padding": [side // 2 for side in kernel.shape[:2]], "groups": x.shape[1]}
        return (
            torch.nn.grad.conv2d_input(x.shape, kernel.permute(2, 3, 0, 1), gradient, **options) if for_x else None,
            _gradient_for_kernel(x, kernel, gradient, options).to(kernel.dtype) if for_kernel else None,
            gradient.sum((0, 2, 3)) if for_bias else None,
        )


def _gradient_for_kernel(x, kernel, gradient, options):
    (_, channels, height, width), (rows, columns) = x.shape, kernel.shape[:2]
    if contract.band_height(height, width, rows) * width > MOST_POSITIONS:
        shape = (channels, 1, rows, columns)
        return torch.nn.grad.conv2d_weight(x.float(), shape, gradient.float(), **options).permute(2, 3, 0, 1)
    # As a matrix a map is copied faster than with four axes.
    x, gradient = (maps.permute(0, 2, 3, 1).reshape(-1, channels).t().contiguous() for maps in (x, gradient))
    x, gradient = (maps.view(channels, -1, height, width) for maps in (x, gradient))
    return contract.gradient_for_kernel(x, gradient, rows, columns, lambda a, b: torch.bmm(a.transpose(1, 2), b))


def _processor() -> str:
    """Returns what the system says of the processor; its maker's name is part of that under Linux and Windows."""
    cpuinfo = Path("/proc/cpuinfo")
    return cpuinfo.read_text().partition("\n\n")[0] if cpuinfo.exists() else platform.processor()


# MKL, which multiplies PyTorch's matrices, takes twice as long on AMD's processors as oneDNN, which convolves: (16384,
# 256) by (256, 256) in float32 on one core of an EPYC, milliseconds alone and with all gradients:
# addmm 61 / 179, conv2d with a kernel of 1 x 1 25 / 105.
CONVOLVES_FASTER = "AuthenticAMD" in _processor()


def pointwise_conv(x: Any, kernel: Any, bias: Any, data_format: str) -> Any:
    """With channels first a convolution on every CPU: a product's result is no contiguous tensor.

    For such tensors PyTorch's batch norm rounds the sums of its gradients to bfloat16, so that gradients for the bias
    before it, which all but cancel, were off by half. It also takes longer: of (64, 256, 16, 16), forward and backward
    on two cores of an EPYC, einsum 85 ms and conv2d 59 in float32, and six tenths in bfloat16.
    """
    kernel, bias = ops.convert_to_tensor(kernel), ops.convert_to_tensor(bias)
    first = data_format == "channels_first"
    if (first or CONVOLVES_FASTER) and x.ndim == 4 and x.is_cpu and not torch.compiler.is_compiling():
        images, weight = x if first else x.permute(0, 3, 1, 2), kernel.t()[:, :, None, None]
        y = torch.nn.functional.conv2d(images, weight, bias)
        return y if first else y.permute(0, 2, 3, 1)
    if first:
        return contract.pointwise_conv(x, kernel, bias, data_format)
    *positions, channels = x.shape
    return torch.addmm(bias, x.reshape(-1, channels), kernel).reshape(*positions, kernel.shape[-1])


def token_dense(x: Any, kernel: Any, bias: Any) -> Any:
    """In one call; as a linear layer it would take copies of `x` whose positions come last."""
    kernel, bias = ops.convert_to_tensor(kernel), ops.convert_to_tensor(bias)
    return torch.baddbmm(bias[:, None], kernel.t().expand(x.shape[0], -1, -1), x)


def split(x: Any, positions: Sequence[int], axis: int) -> list[Any]:
    """Keras makes a tensor of the positions, and torch.export then knows no widths."""
    return list(x.split([stop - start for start, stop in pairwise([0, *positions, int(x.shape[axis])])], axis))


def mix_spans(parts: dict[contract.Span, Any], convolutions: dict[contract.Span, Any], axis: int) -> Any:
    """Without gradients, each span is computed into its place, and nothing is copied to join them."""
    is_quantized = any(convolution.quantization_mode for convolution in convolutions.values())
    if is_quantized or axis != -1 or torch.is_grad_enabled():
        return contract.mix_spans(parts, convolutions, axis)
    first, (_, channels) = next(iter(parts.values())), list(parts)[-1]
    mixed = first.new_empty((*first.shape[:-1], channels))
    for (start, stop), part in parts.items():
        target = mixed[..., start:stop]
        if (start, stop) not in convolutions:
            target.copy_(part)
        elif CONVOLVES_FASTER:
            target.copy_(convolutions[start, stop](part))
        else:
            convolution = convolutions[start, stop]
            bias, kernel = ops.convert_to_tensor(convolution.bias), ops.convert_to_tensor(convolution.kernel)
            torch.addmm(bias, part.reshape(-1, stop - start), kernel, out=target.view(-1, stop - start))
    return mixed


def activate(x: Any, activation: Callable) -> Any:
    if activation is not keras.activations.gelu:
        return activation(x)
    return torch.nn.functional.gelu(x) if torch.is_grad_enabled() else torch.ops.aten.gelu_(x)


def layer_norm(x: Any, gamma: Any, beta: Any, epsilon: float) -> Any:
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    gamma, beta = (ops.convert_to_tensor(value).to(wide.dtype) for value in (gamma, beta))
    return torch.nn.functional.layer_norm(wide, gamma.shape, gamma, beta, epsilon).to(x.dtype)


def add_branch(x: Any, branch: Any, scale: Any = None) -> Any:
    scale = None if scale is None else ops.convert_to_tensor(scale)
    if torch.is_grad_enabled():
        return torch.add(x, branch) if scale is None else torch.addcmul(x, branch, scale)
    return branch.add_(x) if scale is None else torch.addcmul(x, branch, scale, out=branch)


def post_norm(
    x: Any, activation: Callable, norm: keras.layers.Layer | None, training: bool | None, residual: Any = None
) -> Any:
    in_place = not torch.is_grad_enabled()
    x = activate(x, activation)
    if in_place and contract.is_scale_and_shift(norm, training):
        mean, variance, gamma, beta = map(
            ops.convert_to_tensor, (norm.moving_mean, norm.moving_variance, norm.gamma, norm.beta)
        )
        scale = gamma * torch.rsqrt(variance + norm.epsilon)
        x = torch.addcmul(beta - mean * scale, x, scale, out=x)
    elif norm is not None:
        x = norm(x, training=training)
    if residual is None:
        return x
    return x.add_(residual) if in_place else ops.add(x, residual)


def batch_norm(
    x: Any, mean: Any, variance: Any, gamma: Any, beta: Any, axis: int, epsilon: float, training: bool
) -> tuple[Any, Any, Any]:
    """In one pass; the contract's means, differences and products go over the memory once each."""
    if training and _shares_batches.get() and not x.is_meta:  # Keras infers shapes with tensors without memory
        x = x if axis == 1 else x.permute(0, 3, 1, 2)
        y, mean, variance = NormOfAllProcesses.apply(x, *map(ops.convert_to_tensor, (gamma, beta)), epsilon)
        return y if axis == 1 else y.permute(0, 2, 3, 1), mean, variance
    values = x.numel() // x.shape[axis]
    if training and values == 1:  # which PyTorch refuses
        return contract.batch_norm(x, mean, variance, gamma, beta, axis, epsilon, training)
    mean, variance, gamma, beta = map(ops.convert_to_tensor, (mean, variance, gamma, beta))
    if training:  # running statistics with a momentum of 1 are those of the batch
        mean, variance = torch.zeros_like(mean), torch.zeros_like(variance)
    x = x if axis == 1 else x.permute(0, 3, 1, 2)
    y = torch.nn.functional.batch_norm(x, mean, variance, gamma, beta, training, momentum=1.0, eps=epsilon)
    y = y if axis == 1 else y.permute(0, 2, 3, 1)
    return y, mean, variance * ((values - 1) / values) if training else variance  # PyTorch's is the unbiased variance


_shares_batches = contextvars.ContextVar("shares_batches", default=False)


@contextlib.contextmanager
def sharing_batches() -> Iterator[None]:
    """Makes batch norms in training use the statistics of all processes' parts of a batch, inside of it.

    All processes of `torch.distributed` must then compute the same norms, in the same order.
    """
    token = _shares_batches.set(True)
    try:
        yield
    finally:
        _shares_batches.reset(token)


class NormOfAllProcesses(torch.autograd.Function):
    """`contract.batch_norm` in training over the parts of a batch that all processes have, on CPUs and GPUs alike.

    One exchange each way. Forward, each process gathers the others' counts, means and variances, and joins them as
    `mean = Σ share · mean_i`, `variance = Σ share · (variance_i + (mean_i - mean)²)`: squares of x itself would lose
    digits where the mean is large. Backward, the sums of the gradients, and of their products with the normalised x,
    are added up. Gradients for gamma and beta stay those of the own part, like all other weights'.
    """

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, gamma: torch.Tensor, beta: torch.Tensor, epsilon: float
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        running = [torch.zeros_like(gamma) for _ in range(2)]  # their dtype is that of the statistics
        own = torch.batch_norm_update_stats(x, *running, 0.0)
        own = torch.cat([*own, gamma.new_full((1,), x.numel() // x.shape[1])])
        of_all = own.new_empty(dist.get_world_size(), own.numel())
        dist.all_gather(list(of_all), own)
        counts, channels = of_all[:, -1:], len(gamma)
        shares, (means, variances) = counts / counts.sum(), of_all[:, :-1].split(channels, 1)
        mean = (shares * means).sum(0)
        variance = (shares * (variances + (means - mean) ** 2)).sum(0)
        ctx.save_for_backward(x, gamma, mean, variance, counts.sum())
        ctx.epsilon = epsilon
        ctx.mark_non_differentiable(mean, variance)
        return _normalized(x, mean, variance, gamma, beta, epsilon), mean, variance

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor, *_: Any) -> tuple[torch.Tensor | None, ...]:
        x, gamma, mean, variance, count = ctx.saved_tensors
        # `gradient · scale`, as if the statistics were constants, and what they add: a multiple of the normalised x.
        # In half precision PyTorch's own kernel is to compute the first, with its scales in float32.
        half = x.dtype != gamma.dtype
        scaled, for_gamma, for_beta = torch.ops.aten.native_batch_norm_backward(
            gradient, x, gamma, mean, variance, None, None, False, ctx.epsilon, [half, True, True]
        )
        sums = torch.cat([for_gamma, for_beta])
        dist.all_reduce(sums)
        product, total = (sums / count).chunk(2)
        scale = gamma * torch.rsqrt(variance + ctx.epsilon)
        added = _normalized(x, mean, variance, -scale * product, -scale * total, ctx.epsilon)
        for_x = scaled.add_(added) if half else added.addcmul_(gradient, scale[:, None, None])
        return for_x, for_gamma, for_beta, None


def _normalized(x: Any, mean: Any, variance: Any, gamma: Any, beta: Any, epsilon: float) -> torch.Tensor:
    return torch.nn.functional.batch_norm(x, mean, variance, gamma, beta, training=False, eps=epsilon)


def adamw() -> type[keras.optimizers.Optimizer]:
    """Keras makes an instance of a subclass, which updates all weights in one call."""
    with keras.device("cpu"):
        return type(keras.optimizers.AdamW())
