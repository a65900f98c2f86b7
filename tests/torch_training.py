"""What our recipes do beside the network, in plain PyTorch: both optimisers, and the patch embedding as a whitening."""

import numpy as np
import torch


def orthogonal(matrix, steps=5):
    """Brings all singular values near 1, by five steps of an odd polynomial."""
    x = matrix / (torch.linalg.norm(matrix) + 1e-7)
    for _ in range(steps):
        square = x @ x.T
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    return x


class AdamW:
    """PyTorch's AdamW, with the learning rate set by hand before each step."""

    def __init__(self, network, weight_decay, epsilon):
        self.adamw = torch.optim.AdamW(network.parameters(), lr=1.0, weight_decay=weight_decay, eps=epsilon)
        self.zero_grad, self.step = self.adamw.zero_grad, self.adamw.step

    def set_rate(self, rate):
        self.adamw.param_groups[0]["lr"] = rate


class Muon:
    """Muon for the kernels of convolutions, each as a matrix with a row per output channel; AdamW for all else."""

    def __init__(self, network, weight_decay, epsilon, momentum=0.95):
        parameters = [*network.parameters()]
        self.kernels = [p for p in parameters if p.ndim == 4]
        others = [p for p in parameters if p.ndim != 4]
        self.adamw = torch.optim.AdamW(others, lr=1.0, weight_decay=weight_decay, eps=epsilon)
        self.averages = [torch.zeros_like(p) for p in self.kernels]
        self.weight_decay, self.momentum = weight_decay, momentum

    def set_rate(self, rate):
        self.rate = self.adamw.param_groups[0]["lr"] = rate

    def zero_grad(self):
        for parameter in self.kernels:
            parameter.grad = None
        self.adamw.zero_grad()

    @torch.no_grad()
    def step(self):
        self.adamw.step()
        for kernel, average in zip(self.kernels, self.averages, strict=True):
            average.mul_(self.momentum).add_(kernel.grad)
            ahead = (kernel.grad + self.momentum * average).flatten(1)  # Nesterov's
            update = 0.2 * max(ahead.shape) ** 0.5 * orthogonal(ahead)
            kernel.mul_(1 - self.rate * self.weight_decay)
            kernel.sub_(self.rate * update.reshape(kernel.shape))


@torch.no_grad()
def whiten(convolution, images, seed):
    """Starts a patch embedding with random directions in the space in which patches have the unit covariance."""
    patches = torch.nn.functional.unfold(images, convolution.kernel_size, stride=convolution.stride)
    patches = patches.movedim(1, -1).flatten(0, 1).double()
    variances, axes = torch.linalg.eigh(torch.cov(patches.T))
    random = np.random.default_rng(seed).normal(size=(convolution.out_channels, patches.shape[1]))
    directions = torch.nn.functional.normalize(torch.from_numpy(random), dim=1)
    rows = directions @ (axes / (variances + 1e-3).sqrt()).T
    convolution.weight.copy_(rows.reshape(convolution.weight.shape))
    convolution.bias.copy_(-rows @ patches.mean(0))
