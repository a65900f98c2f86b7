"""A functional model of layers that follow one another, and what it knows of itself."""

import inspect
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import Any

import keras
from keras import ops

from keras_mixers.layers import PatchEmbed
from keras_mixers.layers.validation import ImageError
from keras_mixers.models.image_spec import ImageSpec


@keras.saving.register_keras_serializable(package="keras_mixers")
class Network(keras.Model):
    """A functional `keras.Model` that is one line of layers, and frees the output of each once the next is computed.

    Keras's own keeps every output until the last one is computed. Where nothing is compiled, as on PyTorch, each then
    takes new memory from the system: inference takes up to 1.4 times as long.

    Its attributes are saved and cloned with it.

    Attributes:
        pixels: the images that it takes, None if that is not known.
        class_names: names of its classes, None if they are not known.
        dtype_policy: the one in which its blocks compute.
        block_names: names of the layers of each block.
    """

    pixels: ImageSpec | None = None
    class_names: tuple[str, ...] | None = None
    block_names: tuple[tuple[str, ...], ...] = ()

    # Keras recognises a functional model by these arguments.
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Here model.compile sees whether float16 needs loss scaling. The layers know it in a file or a clone, too.
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
    def norm(self) -> keras.layers.Layer | None:
        """The norm before the mean, None in a network without one."""
        return next((layer for layer in self.layers if layer.name == "norm"), None)

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
        if isinstance(outputs, keras.KerasTensor):  # keras.models.clone_model makes the clone of these alone
            outputs.known_to_network = self._known()
        return outputs

    def save(self, filepath: str | Path, *args: Any, **kwargs: Any) -> None:
        """Saves the network as `keras.Model.save` does; an .h5 file is refused, as Keras could not load it again."""
        if str(filepath).endswith((".h5", ".hdf5")):
            raise ValueError(
                f"filepath must end with .keras, got filepath={str(filepath)!r}: Keras does not find the classes of a "
                "library in an .h5 file; save_weights writes a .weights.h5 file."
            )
        super().save(filepath, *args, **kwargs)

    def export(self, filepath: str | Path, *args: Any, input_signature: Any = None, **kwargs: Any) -> None:
        """Exports the network as `keras.Model.export` does, even before it is called; see also `export_model`."""
        if input_signature is None:
            input_signature = [keras.InputSpec(shape=x.shape, dtype=x.dtype, name=x.name) for x in self.inputs]
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
        if pixels is not None:  # a file holds lists for tuples
            model.pixels = ImageSpec(**{**pixels, "mean": tuple(pixels["mean"]), "std": tuple(pixels["std"])})
        if class_names is not None:
            model.class_names = tuple(class_names)
        if block_names is None:  # in a file of version 0.1
            mixers = [layer.name for layer in model.layers if layer.name.startswith("block_")]
            block_names = [names for _, names in groupby(mixers, lambda name: name.split("_")[1])]
        model.block_names = tuple(map(tuple, block_names))
        return model
