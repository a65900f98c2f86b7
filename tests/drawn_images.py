"""Images that need no files."""

import numpy as np


def noise(count, size, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def scenes(count, size, seed=0):
    """Smooth images of few and uneven grey levels, with black and white parts, as photographs have them."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:size, :size] / size
    waves = [a * np.sin(b * rows + c * columns + d) for a, b, c, d in rng.uniform(0, 9, (count * 3, 4))]
    levels = 128 + rng.uniform(10, 40, (count * 3, 1, 1)) * np.stack(waves)
    return np.clip(levels, 0, 255).astype(np.uint8).reshape(count, 3, size, size).transpose(0, 2, 3, 1)
