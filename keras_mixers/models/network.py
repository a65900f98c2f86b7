"""A functional model of layers that follow one another, and what it knows of itself."""

import inspect
import re
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import keras
from keras import ops

from keras_mixers.layers import PatchEmbed
from keras_mixers.layers.validation import ImageError
from keras_mixers.models.image_spec import ImageSpec


@keras.saving.register_keras_serializable(package="keras_mixers")
class Network(keras.Model):
    """A functional `keras.Model` that is one line of layers, and computes them without holding on to what they give.

    Keras's own keeps the output of every layer until the last one is computed. Where nothing is compiled, as on
    PyTorch, each then needs memory that the system has to provide: inference takes up to 1.4 times as long.

    Args:
        inputs: the input tensor.
        outputs: the output tensor, which layers of one input and one output lead to.
        name: name of the model.

    What it knows of itself is saved with it, and cloned.

    Attributes:
        pixels: the images that it takes, None if that is not known.
        class_names: names of its classes, None if they are not known.
        dtype_policy: the one in which its blocks compute.
        block_names: names of the layers of each block.
    """

    pixels: ImageSpec | None = None
    class_names: tuple[str, ...] | None = None
    block_names: tuple[tuple[str, ...], ...] = ()

    # Keras takes a model for a functional one by these arguments, in its old versions and its new ones.
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # model.compile looks there whether float16 needs loss scaling. The layers know it in a file or a clone, too.
        if self.embedding is not None:
            self.dtype_policy = self.embedding.dtype_policy
        self._knowing_training = frozenset(
            layer.name for layer in self.layers if "training" in inspect.signature(layer.call).parameters
        )
        for name, value in getattr(self.outputs[0], "known_to_network", {}).items():
            setattr(self, name, value)

    @property
    def embedding(self) -> PatchEmbed | None:
        """The layer that embeds the patches."""
        return next((layer for layer in self.layers if isinstance(layer, PatchEmbed)), None)

    @property
    def blocks(self) -> list[list[keras.layers.Layer]]:
        """The layers of each block."""
        layers = {layer.name: layer for layer in self.layers}
        return [[layers[name] for name in names] for names in self.block_names]

    @property
    def head(self) -> keras.layers.Dense | None:
        """The layer that gives the logits, None in a network without its top."""
        return self.layers[-1] if self.layers[-1].name == "head" else None

    @property
    def data_format(self) -> str:
        """The layout of its images."""
        return "channels_first" if self.takes_channels_first else "channels_last"

    @property
    def image_sides(self) -> tuple[int | None, int | None]:
        """Height and width of its images, None for what may vary."""
        return self.input_shape[2:4] if self.takes_channels_first else self.input_shape[1:3]

    @property
    def takes_channels_first(self) -> bool:
        """Whether its images have their channels first."""
        return any(layer.name == "to_channels_last" for layer in self.layers)

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        (x,) = keras.tree.flatten(inputs)
        x = ops.convert_to_tensor(x)
        if len(x.shape) != len(self.inputs[0].shape):
            raise ImageError(
                f"{self.name!r} takes a batch of images, {self.inputs[0].shape}, got shape {tuple(x.shape)}; a single "
                "image needs a batch axis in front."
            )
        if not keras.backend.is_float_dtype(keras.backend.standardize_dtype(x.dtype)):
            x = ops.cast(x, self.inputs[0].dtype)
        for layer in self.layers[1:]:
            x = layer(x, training=training) if layer.name in self._knowing_training else layer(x)
        return x

    def _run_through_graph(self, *args: Any, **kwargs: Any) -> Any:
        outputs = super()._run_through_graph(*args, **kwargs)
        if isinstance(outputs, keras.KerasTensor):  # all that keras.models.clone_model makes the clone of
            outputs.known_to_network = self._known()
        return outputs

    def save(self, filepath: str | Path, *args: Any, **kwargs: Any) -> None:
        """Saves the network as `keras.Model.save` does, in a .keras file.

        Raises:
            ValueError: if it shall be an .h5 file, which Keras could not load again.
        """
        if str(filepath).endswith((".h5", ".hdf5")):
            raise ValueError(
                f"filepath must end with .keras, got filepath={str(filepath)!r}: Keras does not find the classes of a "
                "library in an .h5 file; save_weights writes a .weights.h5 file."
            )
        super().save(filepath, *args, **kwargs)

    def export(self, filepath: str | Path, *args: Any, input_signature: Any = None, **kwargs: Any) -> None:
        """Exports the network as `keras.Model.export` does, also before it was called; see also `export_model`."""
        if input_signature is None:
            (image,) = self.inputs
            input_signature = [keras.InputSpec(shape=image.shape, dtype=image.dtype, name=image.name)]
        super().export(filepath, *args, input_signature=input_signature, **kwargs)

    def _known(self) -> dict[str, Any]:
        return {"pixels": self.pixels, "class_names": self.class_names, "block_names": self.block_names}

    def get_config(self) -> dict[str, Any]:
        pixels = None if self.pixels is None else asdict(self.pixels)
        return {**super().get_config(), **self._known(), "pixels": pixels}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "Network":
        config = dict(config)
        pixels, class_names, block_names = (config.pop(name, None) for name in ("pixels", "class_names", "block_names"))
        model = super().from_config(config, custom_objects)
        if pixels is not None:
            lists = {name: tuple(value) for name, value in pixels.items() if isinstance(value, list | tuple)}
            model.pixels = ImageSpec(**{**pixels, **lists})
        if class_names is not None:
            model.class_names = tuple(class_names)
        if block_names is None:  # in a file of version 0.1
            block_names = _by_block(layer.name for layer in model.layers)
        model.block_names = tuple(map(tuple, block_names))
        return model


def _by_block(names: Iterable[str]) -> list[list[str]]:
    blocks: dict[str, list[str]] = {}
    for name in names:
        if match := re.match(r"block_(\d+)_", name):
            blocks.setdefault(match[1], []).append(name)
    return list(blocks.values())
