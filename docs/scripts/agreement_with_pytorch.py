"""How far networks are from their PyTorch counterparts with the same weights.

`python docs/scripts/agreement_with_pytorch.py` measures all networks on all backends and writes docs/agreement.md.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "agreement.md"
BACKENDS = ("jax", "tensorflow", "torch")
DATA_FORMATS = ("channels_last", "channels_first")
SIZES = ((224, 224), (160, 192))  # the second fills neither patches of 7 nor of 14 pixels; not where one size is fixed
TOLERANCE = 1e-5  # measured, it is a fifth of that and less

# Every builder, at the sizes of the papers' networks for images of 224 pixels, and the ImageNet networks.
NETWORKS = {
    "convmixer_256_8_p7_k7": {},
    "splitmixer_i_256_8_p7_k7": {},
    "splitmixer_ii_256_8_p7_k7": {},
    "splitmixer_iii_256_8_p7_k7": {},
    "splitmixer_iv_256_8_p7_k7": {},
    "splitmixer_v_256_8": {"kernel_size": 7, "patch_size": 7},
    "stridemixer_256_8": {"kernel_size": 7, "patch_size": 7},
    "convmixer_1536_20": {},
    "convmixer_768_32": {},
    "convmixer_1024_20_p14_k9": {},
    "splitmixer_i_1536_20": {},
    "splitmixer_i_768_32": {},
    "mlp_mixer_64_8_p4": {},
    "resmlp_64_8_p4": {},
    "gmlp_60_8_p4": {},
    "mixer_b16": {},
    "gmixer_24": {},
    "resmlp_24": {},
    "gmlp_s16": {},
}

INTRODUCTION = """# Agreement with PyTorch

The largest difference between the outputs of our networks and of PyTorch networks with the same weights, relative to
the largest output: features before the mean / logits, over images of {sizes} pixels, or of the one size
that a network takes, in float32 on a CPU. Tests allow {tolerance:.0e}. The PyTorch networks are written from the
papers' equations, with random weights and norms (`tests/torch_networks.py`). This page is what
`python docs/scripts/agreement_with_pytorch.py` writes; here with
{versions}.
"""


def differences(name, sizes=SIZES):
    """Give the largest relative difference of (features, logits) from PyTorch's, over images, by data format."""
    import torch

    sys.path.append(str(ROOT / "tests"))
    import torch_networks

    import keras_mixers

    preset = keras_mixers.get_preset(name)
    arguments, builder = {**preset.arguments, **NETWORKS[name]}, preset.builder.__name__
    if builder in torch_networks.MLP_MIXERS:
        sizes = ((arguments["image_size"],) * 2,)
    torch.manual_seed(0)
    layout = torch_networks.layout_of(builder)
    network = torch_networks.randomize(torch_networks.counterpart(builder, arguments, layout))
    images = [np.random.default_rng(0).standard_normal((1, 3, *size)).astype("float32") for size in sizes]
    with torch.no_grad():
        features = [network.features(torch.from_numpy(image)) for image in images]
        expected = [(x.numpy(), network.head(network.pool(x)).numpy()) for x in features]
    return {data_format: _differences(name, network, images, expected, data_format) for data_format in DATA_FORMATS}


def _differences(name, network, images, expected, data_format):
    import keras

    import keras_mixers

    model = keras_mixers.create_model(name, **NETWORKS[name], data_format=data_format)
    keras_mixers.load_torch_weights(model, network.state_dict())
    both = keras.Model(model.input, [model.get_layer("pool").input, model.output])
    last = data_format == "channels_last"
    found = []
    for image, (features, logits) in zip(images, expected, strict=True):
        outputs = both(np.moveaxis(image, 1, -1) if last else image, training=False)
        features_found, logits_found = map(keras.ops.convert_to_numpy, outputs)
        features_found = np.moveaxis(features_found, -1, 1)  # channels last inside, whatever the images' format
        found.append((relative(features_found, features), relative(logits_found, logits)))
    return tuple(max(values) for values in zip(*found, strict=True))


def relative(found, expected):
    """Give the largest difference, relative to the largest expected value."""
    assert found.shape == expected.shape
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def versions():
    """Give the versions that were measured."""
    import keras
    import torch

    backend = keras.backend.backend()
    return {"keras": keras.__version__, "torch": torch.__version__, backend: __import__(backend).__version__}


def page(measured):
    """Write the page from {backend: {network: {data format: (features, logits)}}}."""
    columns = [(backend, data_format) for backend in BACKENDS for data_format in DATA_FORMATS]
    sizes = " and ".join(f"{height} × {width}" for height, width in SIZES)
    versions = ", ".join(f"{name} {version}" for name, version in sorted(measured["versions"].items()))
    lines = [
        INTRODUCTION.format(sizes=sizes, versions=versions, tolerance=TOLERANCE),
        "| network | " + " | ".join(f"{backend} {data_format}" for backend, data_format in columns) + " |",
        "| --- |" + " --- |" * len(columns),
    ]
    for name, overrides in NETWORKS.items():
        label = f"`{name}`" + "".join(f", {key} {value}" for key, value in overrides.items())
        cells = ["{:.0e} / {:.0e}".format(*measured[backend][name][data_format]) for backend, data_format in columns]
        lines.append(f"| {label} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main():
    """Measure on all backends and write the page, or on this one and print."""
    if "--this-backend" in sys.argv:
        print(json.dumps({"versions": versions(), "found": {name: differences(name) for name in NETWORKS}}))
        return
    measured = {"versions": {}}
    for backend in BACKENDS:
        command = [sys.executable, __file__, "--this-backend"]
        environment = {**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
        result = json.loads(done.stdout.splitlines()[-1])
        measured[backend] = result["found"]
        measured["versions"] |= result["versions"]
    PAGE.write_text(page(measured))


if __name__ == "__main__":
    main()
