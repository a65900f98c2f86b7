"""What the networks learn, as the figures of both papers show it; figures are matplotlib's."""

from keras_mixers.training.curves import training_curves
from keras_mixers.visualize.channel_reach import channel_reach, reachable_channels
from keras_mixers.visualize.class_maps import class_activation_map, class_maps, grad_cam
from keras_mixers.visualize.costs import accuracy_against_cost, accuracy_against_costs, savings
from keras_mixers.visualize.feature_maps import feature_maps
from keras_mixers.visualize.kernels import depthwise_kernels, patch_embedding, token_kernels
from keras_mixers.visualize.page import write_page

__all__ = [
    "accuracy_against_cost", "accuracy_against_costs", "channel_reach", "class_activation_map", "class_maps",
    "depthwise_kernels", "feature_maps", "grad_cam", "patch_embedding", "reachable_channels", "savings",
    "token_kernels", "training_curves", "write_page",
]  # fmt: skip
