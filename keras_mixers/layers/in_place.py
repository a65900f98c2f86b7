"""Where a tensor may be overwritten."""

import keras


def in_place() -> bool:
    """Returns whether a tensor that nobody else holds may be overwritten: on PyTorch, without gradients to record.

    That saves a pass over memory and more: for the system, to provide memory takes as long as a GELU.
    """
    if keras.backend.backend() != "torch":
        return False
    import torch

    return not torch.is_grad_enabled()
