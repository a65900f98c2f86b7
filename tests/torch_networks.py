"""The networks of the papers in PyTorch, written from the equations, with modules named as in each published layout.

They are what the Keras networks are compared with: in PyTorch's own operations, initialisation and training.
"""

import torch
from torch import nn


class Residual(nn.Module):
    """z = F(x) + x."""

    def __init__(self, fn):
        super().__init__()
        self.fn = fn

    def forward(self, x):
        return self.fn(x) + x


def post_norm(convolution, dim, activation):
    """N(sigma{convolution}): the modules in the order in which they are computed."""
    return [convolution, activation(), nn.BatchNorm2d(dim)]


def patch_embedding(dim, patch_size, activation):
    return post_norm(nn.Conv2d(3, dim, patch_size, stride=patch_size), dim, activation)


def spatial_mixing_2d(dim, kernel_size, activation):
    """ConvMixer Eq. 2."""
    convolution = nn.Conv2d(dim, dim, kernel_size, groups=dim, padding="same")
    return Residual(nn.Sequential(*post_norm(convolution, dim, activation)))


def spatial_mixing_1d(dim, kernel_size, activation):
    """SplitMixer Eqs. 2 and 3: across the width, then across the height, inside one residual."""
    across = nn.Conv2d(dim, dim, (1, kernel_size), groups=dim, padding="same")
    down = nn.Conv2d(dim, dim, (kernel_size, 1), groups=dim, padding="same")
    return Residual(nn.Sequential(*post_norm(across, dim, activation), *post_norm(down, dim, activation)))


def pointwise(channels):
    return nn.Conv2d(channels, channels, kernel_size=1)


class OneSegment(nn.Module):
    """Mixes the channels [start, stop) and keeps the others: one block of SplitMixer-I or II."""

    def __init__(self, start, stop):
        super().__init__()
        self.start, self.stop = start, stop
        self.mixer = pointwise(stop - start)

    def forward(self, x):
        mixed = self.mixer(x[:, self.start : self.stop])
        return torch.cat([x[:, : self.start], mixed, x[:, self.stop :]], dim=1)


class SharedSegments(nn.Module):
    """Mixes all segments with the same parameters: SplitMixer-III."""

    def __init__(self, dim, segments):
        super().__init__()
        self.width = dim // segments
        self.mixer = pointwise(self.width)

    def forward(self, x):
        return torch.cat([self.mixer(segment) for segment in torch.split(x, self.width, dim=1)], dim=1)


class OwnSegments(nn.Module):
    """Mixes each segment with its own parameters; the last one takes the remainder: SplitMixer-IV."""

    def __init__(self, dim, segments):
        super().__init__()
        width = dim // segments
        self.widths = [width] * (segments - 1) + [dim - width * (segments - 1)]
        self.mixer = nn.ModuleList(pointwise(width) for width in self.widths)

    def forward(self, x):
        parts = torch.split(x, self.widths, dim=1)
        return torch.cat([mixer(part) for mixer, part in zip(self.mixer, parts, strict=True)], dim=1)


class OverlappingSegments(nn.Module):
    """Mixes the first `width` channels, then the last `width` of what that gave: SplitMixer-V."""

    def __init__(self, dim, width):
        super().__init__()
        self.dim, self.width = dim, width
        self.mixer1, self.mixer2 = pointwise(width), pointwise(width)

    def forward(self, x):
        x = torch.cat([self.mixer1(x[:, : self.width]), x[:, self.width :]], dim=1)
        first = self.dim - self.width
        return torch.cat([x[:, :first], self.mixer2(x[:, first:])], dim=1)


def channel_mixing(kind, i, dim, ratio=2 / 3, segments=2):
    """What SplitMixer `kind` puts into block i."""
    width, part = int(dim * ratio), dim // segments
    if kind == "I":
        return OneSegment(0, width) if i % 2 == 0 else OneSegment(dim - width, dim)
    if kind == "II":
        j = i % segments
        return OneSegment(j * part, dim if j == segments - 1 else (j + 1) * part)
    if kind == "III":
        return SharedSegments(dim, segments)
    if kind == "IV":
        return OwnSegments(dim, segments)
    return OverlappingSegments(dim, width)


def pool():
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())


class Network(nn.Module):
    """What all layouts but the plain sequence share: `features`, and a head on their mean."""

    def forward(self, x):
        return self.head(self.pool(self.features(x)))


class TimmConvMixer(Network):
    """ConvMixer with the module names of timm."""

    def __init__(self, dim, depth, kernel_size, patch_size, num_classes, activation=nn.GELU):
        super().__init__()
        self.stem = nn.Sequential(*patch_embedding(dim, patch_size, activation))
        self.blocks = nn.Sequential(
            *(
                nn.Sequential(
                    spatial_mixing_2d(dim, kernel_size, activation), *post_norm(pointwise(dim), dim, activation)
                )
                for _ in range(depth)
            )
        )
        self.pool = pool()
        self.head = nn.Linear(dim, num_classes)

    def features(self, x):
        return self.blocks(self.stem(x))


class SplitMixer(Network):
    """SplitMixer I to V with the module names of its authors' code."""

    def __init__(self, kind, dim, blocks, kernel_size, patch_size, num_classes, activation=nn.GELU, **split):
        super().__init__()
        self.patch_emb = nn.Sequential(*patch_embedding(dim, patch_size, activation))
        self.mixer_blocks = nn.Sequential()
        for i in range(blocks):
            self.mixer_blocks.append(spatial_mixing_1d(dim, kernel_size, activation))
            mixing = channel_mixing(kind, i, dim, **split)
            self.mixer_blocks.append(nn.Sequential(*post_norm(mixing, dim, activation)))
        self.pool = pool()
        self.head = nn.Linear(dim, num_classes)

    def features(self, x):
        return self.mixer_blocks(self.patch_emb(x))


class StrideMixer(Network):
    """SplitMixer with a 3D convolution along the channels, with the module names of its Appendix C."""

    def __init__(
        self, dim, blocks, kernel_size, patch_size, num_classes, channel_kernel_size, channel_stride, activation=nn.GELU
    ):
        super().__init__()
        windows = (dim - channel_kernel_size) // channel_stride + 1
        size, stride = (channel_kernel_size, 1, 1), (channel_stride, 1, 1)
        self.patch_emb = nn.Sequential(*patch_embedding(dim, patch_size, activation))
        self.spatial_mixer = nn.ModuleList(spatial_mixing_1d(dim, kernel_size, activation) for _ in range(blocks))
        self.channel_mixer = nn.ModuleList(
            nn.Sequential(
                nn.Conv3d(1, dim // windows, size, stride=stride), activation(), nn.Flatten(1, 2), nn.BatchNorm2d(dim)
            )
            for _ in range(blocks)
        )
        self.pool = nn.Identity()
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(dim, num_classes))

    def features(self, x):
        x = self.patch_emb(x)
        for spatial, channel in zip(self.spatial_mixer, self.channel_mixer, strict=True):
            x = channel(spatial(x).unsqueeze(1))
        return x


class Sequence(nn.Sequential):
    """ConvMixer or SplitMixer I to V as both papers print them: one nn.Sequential."""

    def __init__(self, kind, dim, blocks, kernel_size, patch_size, num_classes, activation=nn.GELU, **split):
        def block(i):
            if kind == "ConvMixer":
                spatial, channel = spatial_mixing_2d(dim, kernel_size, activation), pointwise(dim)
            else:
                spatial = spatial_mixing_1d(dim, kernel_size, activation)
                channel = channel_mixing(kind, i, dim, **split)
            return nn.Sequential(spatial, *post_norm(channel, dim, activation))

        super().__init__(
            *patch_embedding(dim, patch_size, activation),
            *(block(i) for i in range(blocks)),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(dim, num_classes),
        )

    def features(self, x):
        return self[:-3](x)


class Affine(nn.Module):
    """alpha x + beta (ResMLP Eq. 1); timm's parameters are (1, 1, dim), Facebook's (dim,)."""

    def __init__(self, dim, timm):
        super().__init__()
        shape = (1, 1, dim) if timm else (dim,)
        self.alpha, self.beta = nn.Parameter(torch.ones(shape)), nn.Parameter(torch.zeros(shape))

    def forward(self, x):
        return self.alpha * x + self.beta


class MLP(nn.Module):
    """fc2(sigma(fc1(x))), where x is (..., width); gated, sigma of the second half multiplies the first."""

    def __init__(self, width, hidden, activation, gated=False):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden // 2 if gated else hidden, width)
        self.activation, self.gated = activation(), gated

    def forward(self, x):
        x = self.fc1(x)
        if not self.gated:
            return self.fc2(self.activation(x))
        values, gates = x.tensor_split(2, dim=-1)
        return self.fc2(values * self.activation(gates))


class SpatialGate(nn.Module):
    """u * proj(norm(v)), over the positions of each channel of v (gMLP section 2)."""

    def __init__(self, width, positions):
        super().__init__()
        self.norm, self.proj = nn.LayerNorm(width), nn.Linear(positions, positions)

    def forward(self, x):
        u, v = x.tensor_split(2, dim=-1)
        return u * self.proj(self.norm(v).mT).mT


class GatedMLP(nn.Module):
    """fc2(gate(sigma(fc1(x))))."""

    def __init__(self, width, hidden, positions, activation):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden // 2, width)
        self.gate, self.activation = SpatialGate(hidden // 2, positions), activation()

    def forward(self, x):
        return self.fc2(self.gate(self.activation(self.fc1(x))))


class MixerBlock(nn.Module):
    """MLP-Mixer Eq. 1."""

    def __init__(self, dim, positions, token_hidden, channel_hidden, activation, gated):
        super().__init__()
        self.norm1, self.norm2 = (nn.LayerNorm(dim, eps=1e-6) for _ in range(2))
        self.mlp_tokens = MLP(positions, token_hidden, activation, gated)
        self.mlp_channels = MLP(dim, channel_hidden, activation, gated)

    def forward(self, x):
        x = x + self.mlp_tokens(self.norm1(x).mT).mT
        return x + self.mlp_channels(self.norm2(x))


class ResMLPBlock(nn.Module):
    """ResMLP Eqs. 2 and 3, with the module names of timm or of the authors."""

    def __init__(self, dim, positions, hidden, activation, timm):
        super().__init__()
        self.names = ("linear_tokens", "mlp_channels", "ls1", "ls2") if timm else ("attn", "mlp", "gamma_1", "gamma_2")
        self.norm1, self.norm2 = (Affine(dim, timm) for _ in range(2))
        parts = (nn.Linear(positions, positions), MLP(dim, hidden, activation))
        scales = (nn.Parameter(torch.rand(dim) + 0.5) for _ in range(2))
        for name, part in zip(self.names, (*parts, *scales), strict=True):
            setattr(self, name, part)

    def forward(self, x):
        tokens, channels, first, second = (getattr(self, name) for name in self.names)
        x = x + first * tokens(self.norm1(x).mT).mT
        return x + second * channels(self.norm2(x))


class GMLPBlock(nn.Module):
    """gMLP section 2."""

    def __init__(self, dim, positions, hidden, activation):
        super().__init__()
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.mlp_channels = GatedMLP(dim, hidden, positions, activation)

    def forward(self, x):
        return x + self.mlp_channels(self.norm(x))


class Patches(nn.Module):
    """Patches, embedded, as (batch, positions, channels)."""

    def __init__(self, dim, patch_size):
        super().__init__()
        self.proj = nn.Conv2d(3, dim, patch_size, stride=patch_size)

    def forward(self, x):
        x = self.proj(x)
        self.grid = x.shape[2:]
        return x.flatten(2).mT


class MLPMixerNetwork(Network):
    """MLP-Mixer, gMixer, ResMLP or gMLP with the module names of timm, or ResMLP with those of its authors."""

    def __init__(
        self, kind, dim, blocks, patch_size, num_classes, image_size, layout="timm", activation=None, token_ratio=None,
        channel_ratio=None,
    ):  # fmt: skip
        super().__init__()
        self.embed = "stem" if layout == "timm" else "patch_embed"
        setattr(self, self.embed, Patches(dim, patch_size))
        positions = (image_size[0] // patch_size) * (image_size[1] // patch_size)
        tokens = int(dim * (token_ratio or {"MLPMixer": 0.5, "gMixer": 1.0}.get(kind, 0)))
        channels = int(dim * (channel_ratio or (6 if kind == "gMLP" else 4)))
        activation = activation or (nn.SiLU if kind == "gMixer" else nn.GELU)
        make = {
            "MLPMixer": lambda: MixerBlock(dim, positions, tokens, channels, activation, gated=False),
            "gMixer": lambda: MixerBlock(dim, positions, tokens, channels, activation, gated=True),
            "ResMLP": lambda: ResMLPBlock(dim, positions, channels, activation, timm=layout == "timm"),
            "gMLP": lambda: GMLPBlock(dim, positions, channels, activation),
        }[kind]
        self.blocks = nn.Sequential(*(make() for _ in range(blocks)))
        self.norm = Affine(dim, layout == "timm") if kind == "ResMLP" else nn.LayerNorm(dim, eps=1e-6)
        self.pool = pool()
        self.head = nn.Linear(dim, num_classes)

    def features(self, x):
        patches = getattr(self, self.embed)
        return self.norm(self.blocks(patches(x))).mT.unflatten(2, patches.grid)


def randomize(network, seed=0):
    """Give the norms of a network random statistics, scales and shifts that keep its activations near 1."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d | nn.LayerNorm | Affine):
                scale, shift = module.parameters()
                scale.uniform_(0.5, 1.5, generator=generator)
                shift.normal_(0, 0.2, generator=generator)
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.2, generator=generator)
                module.running_var.uniform_(0.5, 1.5, generator=generator)
    return network.eval()


ACTIVATIONS = {"gelu": nn.GELU, "relu": nn.ReLU}
MLP_MIXERS = ("MLPMixer", "gMixer", "ResMLP", "gMLP")


def layout_of(builder):
    """Name the layout in which weights of a builder's networks are published or come with their authors' code."""
    return "timm" if builder in ("ConvMixer", *MLP_MIXERS) else "splitmixer"


def counterpart(builder, arguments, layout):
    """Make the PyTorch network that the builder of this name gives with these arguments, in a layout."""
    if builder in MLP_MIXERS:
        arguments = dict(arguments)
        image = arguments.pop("input_shape", None)
        side = arguments.pop("image_size", 224)
        return MLPMixerNetwork(builder, **arguments, image_size=image[:2] if image else (side, side), layout=layout)
    arguments = {"activation": "gelu", **arguments}
    sizes = [arguments.pop(name) for name in ("kernel_size", "patch_size", "num_classes")]
    arguments["activation"] = ACTIVATIONS[arguments["activation"]]
    dim, blocks = arguments.pop("dim"), arguments.pop("blocks" if "blocks" in arguments else "depth")
    if builder == "StrideMixer":
        return StrideMixer(dim, blocks, *sizes, **arguments)
    kind = builder.removeprefix("SplitMixer")
    if layout == "convmixer":
        return Sequence(kind, dim, blocks, *sizes, **arguments)
    if builder == "ConvMixer":
        return TimmConvMixer(dim, blocks, *sizes, **arguments)
    return SplitMixer(kind, dim, blocks, *sizes, **arguments)
