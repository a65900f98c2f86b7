"""Parameters and multiply-accumulates of a network, summed from what its layers say."""

import math
import numbers
from collections.abc import Sequence
from dataclasses import astuple, dataclass

import keras

from keras_mixers.profiling.table import aligned

Shape = tuple[int, ...]

# thop, with which the SplitMixer paper counted, takes this many operations per output element of a batch norm.
FLOPS_OF_A_NORM = 4


@dataclass(frozen=True)
class LayerProfile:
    """What one layer costs for one image, in the counts of `Profile`."""

    name: str
    kind: str  # name of its class
    output_shape: Shape  # without the batch axis
    params: int
    macs: int
    published_flops: int


@dataclass(frozen=True)
class Profile:
    """What a network costs for one image; `print` shows it as a table.

    Attributes:
        layers: what each layer costs, from the input to the output.
        params: trainable parameters of all layers.
        macs: multiply-accumulates of all layers: convolutions and head, with the products that padding makes zero,
            without biases, activations, norms and means.
        published_flops: the SplitMixer paper's "FLOPs": `macs` + 4 for each element of each batch norm's output.
    """

    layers: tuple[LayerProfile, ...]

    @property
    def params(self) -> int:
        return sum(layer.params for layer in self.layers)

    @property
    def macs(self) -> int:
        return sum(layer.macs for layer in self.layers)

    @property
    def published_flops(self) -> int:
        return sum(layer.published_flops for layer in self.layers)

    def __str__(self) -> str:
        heading = ("layer", "kind", "output shape", "parameters", "MACs", "published FLOPs")
        total = ("total", "", "", self.params, self.macs, self.published_flops)
        return (
            f"{aligned([heading, *map(astuple, self.layers), total])}\n\n"
            "Trainable parameters; multiply-accumulates (MACs) for one image; the SplitMixer paper's FLOPs, which are\n"
            f"MACs + {FLOPS_OF_A_NORM} for each element of each BatchNormalization's output."
        )


# What Keras's own layers with weights cost, by the shapes of input and output: multiply-accumulates, and output
# elements of batch norms. Layers of this library count for themselves.
COUNTS = {
    keras.layers.Dense: lambda before, after: (math.prod(after) * before[-1], 0),
    keras.layers.BatchNormalization: lambda before, after: (0, math.prod(after)),
    keras.layers.LayerNormalization: lambda before, after: (0, 0),
    keras.layers.Normalization: lambda before, after: (0, 0),
}

# Layers without weights that change the shape but cost nothing; those that keep the shape need no entry.
FREE = (
    keras.layers.AveragePooling2D, keras.layers.Flatten, keras.layers.GlobalAveragePooling2D,
    keras.layers.GlobalMaxPooling2D, keras.layers.MaxPooling2D, keras.layers.Permute,
)  # fmt: skip


def profile(model: keras.Model, input_shape: Sequence[int] | None = None) -> Profile:
    """Counts the parameters and the multiply-accumulates of a network, without running it.

    Args:
        model: a functional model whose layers follow one another, such as every builder of this package makes.
        input_shape: shape of one image, (height, width, channels), or (channels, height, width) for a channels-first
            model, in pixels. None takes the model's own, if that is fixed.

    Returns:
        A `Profile`: totals, and the counts of each layer.

    Raises:
        ValueError: if the model branches, has a layer that cannot be counted, or `input_shape` is missing or wrong.

    Example:
        >>> from keras_mixers import SplitMixerI
        >>> found = profile(SplitMixerI(dim=256, blocks=8), input_shape=(32, 32, 3))
        >>> found.params, found.macs, found.published_flops
        (275834, 65219072, 71772672)
        >>> found.layers[2].name, found.layers[2].output_shape, found.layers[2].macs
        ('block_0_spatial', (16, 16, 256), 655360)
    """
    _check_model(model)
    image = _check_image(input_shape, tuple(model.inputs[0].shape[1:]))
    shape, profiles = (1, *image), []
    for layer in model.layers:
        before, shape = shape, _output_shape(layer, shape, image)
        macs, normalized = _count(layer, before, shape)
        params = sum(math.prod(weight.shape) for weight in layer.trainable_weights)
        published_flops = macs + FLOPS_OF_A_NORM * normalized
        profiles.append(LayerProfile(layer.name, type(layer).__name__, shape[1:], params, macs, published_flops))
    return Profile(tuple(profiles))


def _check_model(model: keras.Model) -> None:
    """Refuses a model that is not one line of layers, each of which takes the output of the one before it."""
    if not isinstance(model, keras.Model) or not getattr(model, "inputs", None):
        raise ValueError(
            f"model must be a functional Keras model, such as the builders of keras_mixers make, got "
            f"model={type(model).__name__}; build others with keras.Model(inputs, outputs)."
        )
    tensor = model.inputs[0]
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            raise ValueError(
                f"model must not contain other models, got model={model.name!r} with {layer.name!r} in it; "
                "profile that one by itself."
            )
        if not isinstance(layer, keras.layers.InputLayer):
            if layer.input is not tensor:
                raise ValueError(
                    "model must be one line of layers, each called once, got "
                    f"model={model.name!r}, whose layer {layer.name!r} does not take the output of the layer before "
                    "it; profile its parts by themselves."
                )
            tensor = layer.output
    if len(model.outputs) != 1 or model.outputs[0] is not tensor:
        raise ValueError(
            f"model must have one output, that of its last layer, got model={model.name!r} with "
            f"{len(model.outputs)} of other layers; profile its parts by themselves."
        )


def _check_image(input_shape: Sequence[int] | None, own: tuple[int | None, ...]) -> Shape:
    """Returns the shape of one image, if the model whose own input shape is `own` takes it."""
    if input_shape is None:
        if None in own:
            raise ValueError(
                f"input_shape must be given for a model that takes images of any size, got input_shape=None for {own}; "
                "give a whole number for each None."
            )
        return own
    shape = tuple(input_shape) if isinstance(input_shape, Sequence) else ()
    whole = all(isinstance(size, numbers.Integral) and not isinstance(size, bool) and size > 0 for size in shape)
    if len(shape) != len(own) or not whole or any(b not in (None, a) for a, b in zip(shape, own, strict=True)):
        remedy = "build the model with the size that you want counted"
        remedy = "give a whole number of at least 1 for each None" if None in own else remedy
        raise ValueError(f"input_shape must fit the model's own, {own}, got input_shape={input_shape!r}; {remedy}.")
    return tuple(int(size) for size in shape)


def _output_shape(layer: keras.layers.Layer, shape: Shape, image: Shape) -> Shape:
    if isinstance(layer, keras.layers.InputLayer):
        return shape
    try:
        return tuple(layer.compute_output_shape(shape))
    except NotImplementedError as error:
        raise _no_counts(layer) from error
    except ValueError as error:
        # The layer's own message says what to do.
        raise ValueError(
            f"input_shape must suit all layers, got input_shape={image}, which {layer.name!r} refuses: {error}"
        ) from error


def _count(layer: keras.layers.Layer, before: Shape, after: Shape) -> tuple[int, int]:
    """Returns multiply-accumulates and the output elements of batch norms."""
    if hasattr(layer, "multiply_accumulates"):
        return layer.multiply_accumulates(after), layer.batch_normalized(after)
    for kind, count in COUNTS.items():
        if isinstance(layer, kind):
            return count(before, after)
    if layer.weights or (before != after and not isinstance(layer, FREE)):
        raise _no_counts(layer)
    return 0, 0


def _no_counts(layer: keras.layers.Layer) -> ValueError:
    return ValueError(
        "model must consist of PatchEmbed, SpatialMixer2D and others with a method multiply_accumulates, of "
        f"{', '.join(kind.__name__ for kind in COUNTS)} and layers without weights that pool, flatten or keep the "
        f"shape, got layer {layer.name!r} of class {type(layer).__name__}."
    )
