"""Draws the figures of the documentation, docs/figures/*.png.

    python -m keras_mixers train flowers102_splitmixer_i --images imagenette_mini --epochs 20 --set ...
    python docs/scripts/figures.py MODEL.keras

The network is the one of docs/scripts/imagenette.py, whose command is in docs/results/imagenette.csv, and the
photograph one of scikit-learn's two. What needs no trained network is drawn by the table of models alone.
"""

import argparse
from pathlib import Path

from sklearn.datasets import load_sample_image

import keras_mixers
from keras_mixers import visualize
from keras_mixers.inference import load_trained

FIGURES = Path(__file__).parents[1] / "figures"
RESULTS = FIGURES.parent / "results" / "cifar10.csv"


def main() -> None:
    """Draws all figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", metavar="MODEL.keras")
    model = load_trained(parser.parse_args().network)
    photograph = load_sample_image("china.jpg")

    visualize.patch_embedding(model, save=FIGURES / "patch_embedding.png")
    visualize.depthwise_kernels(model, blocks=(0, 2, 5, 7), save=FIGURES / "depthwise_kernels.png")
    visualize.feature_maps(model, photograph, channels=36, save=FIGURES / "feature_maps.png")
    visualize.class_maps(model, [photograph], save=FIGURES / "class_activation_map.png")
    for name, build in (("i", keras_mixers.SplitMixerI), ("ii", keras_mixers.SplitMixerII)):
        visualize.channel_reach(build(dim=256, blocks=4), save=FIGURES / f"channel_reach_splitmixer_{name}.png")
    for cost in ("params", "macs"):
        visualize.accuracy_against_cost("cifar10", cost, RESULTS, save=FIGURES / f"accuracy_against_{cost}.png")
    visualize.savings(save=FIGURES / "savings.png")


if __name__ == "__main__":
    main()
