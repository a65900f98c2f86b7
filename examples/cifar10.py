"""Train a SplitMixer or a ConvMixer on CIFAR-10.

    KERAS_BACKEND=jax python examples/cifar10.py

is the SplitMixer paper's recipe for SplitMixer-I-256/8 (93.91 % published, 100 epochs; for a GPU). ConvMixer's authors'
25 epochs (92.60 % published) are

    python examples/cifar10.py --model ConvMixer --epochs 25 --clip-norm 0

and a network that two cores train in minutes is

    python examples/cifar10.py --dim 128 --blocks 4 --patch-size 4 --epochs 8 --limit-train 10000 --limit-test 2000 \
        --batch-size 128 --learning-rate 0.01 --augmentation flip

The images come from TensorFlow Datasets, which fetches them once; `--data-dir` says where they are. The output
directory gets `model.keras`, `best.keras`, `history.csv` (one row per epoch), `metrics.json` and checkpoints, from
which `--resume` resumes an interrupted run.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # before TensorFlow starts: it would tell of itself
if os.environ.get("KERAS_BACKEND", "tensorflow") != "tensorflow":
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # it feeds the images only
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # PyTorch's threads do not spin while they wait

import argparse
from dataclasses import replace

import keras_mixers
from keras_mixers.commands.command import ending_in_a_sentence
from keras_mixers.commands.training_arguments import (
    add_dataset_arguments,
    add_run_arguments,
    join_the_others,
    run_arguments,
)
from keras_mixers.data import Augmentation
from keras_mixers.training import fit, get_recipe

AUGMENTATIONS = {
    "none": Augmentation(),
    "flip": Augmentation(flip=True),
    "randaugment": Augmentation(flip=True, rand_augment=(2, 12)),  # SplitMixer's; ConvMixer's 25 epochs
    "keras_cv": Augmentation(  # KerasCV's own, with its defaults
        layers=("keras_cv.RandAugment(value_range=(0, 255))", "keras_cv.MixUp()", "keras_cv.CutMix()")
    ),
    "strong": Augmentation(flip=True, rand_augment=(2, 12), color_jitter=0.2, random_erasing=0.2),  # ConvMixer's 100
}
# Of these recipes come the pixels (each paper normalises with a deviation of its own), the schedule and the epochs.
RECIPES = {
    "ConvMixer": "cifar10_convmixer_100_epochs",
    "SplitMixerI": "cifar10_splitmixer_i",
    "SplitMixerII": "cifar10_splitmixer_ii",
    "SplitMixerIII": "cifar10_splitmixer_iii",
    "SplitMixerIV": "cifar10_splitmixer_iv",
    "SplitMixerV": "cifar10_splitmixer_v",
    "StrideMixer": "cifar10_stridemixer",
}


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    model = parser.add_argument_group("model")
    model.add_argument("--model", choices=RECIPES, default="SplitMixerI")
    model.add_argument("--dim", type=int, default=256, help="number of channels")
    model.add_argument("--blocks", type=int, default=8, help="number of blocks (ConvMixer's depth)")
    model.add_argument("--kernel-size", type=int, default=5, help="in patches")
    model.add_argument("--patch-size", type=int, default=2, help="in pixels")
    model.add_argument("--ratio", type=float, help="width of a segment, I and V")
    model.add_argument("--segments", type=int, help="number of segments, II to IV")
    model.add_argument("--mixed-precision", choices=["mixed_float16", "mixed_bfloat16"])
    training = parser.add_argument_group("training")
    training.add_argument("--learning-rate", type=float, default=0.05, help="the schedule's maximum")
    training.add_argument("--weight-decay", type=float, default=0.005)
    training.add_argument("--clip-norm", type=float, default=1.0, help="0 for no clipping")
    training.add_argument("--augmentation", choices=AUGMENTATIONS, default="randaugment")
    training.add_argument("--mixup", type=float, default=0.0, help="alpha; with --cutmix, each batch gets one of both")
    training.add_argument("--cutmix", type=float, default=0.0, help="alpha")
    training.add_argument("--label-smoothing", type=float, default=0.0)
    training.add_argument("--seed", type=int, default=42)
    add_run_arguments(training)
    data = parser.add_argument_group("data")
    data.add_argument("--limit-train", type=int, help="use only the first images")
    data.add_argument("--limit-test", type=int)
    add_dataset_arguments(data)
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    network = {
        "dim": args.dim,
        getattr(keras_mixers, args.model).blocks_argument: args.blocks,
        "kernel_size": args.kernel_size,
        "patch_size": args.patch_size,
        "ratio": args.ratio,
        "segments": args.segments,
    }
    recipe = replace(
        get_recipe(RECIPES[args.model]),
        model_arguments={name: value for name, value in network.items() if value is not None},
        augmentation=replace(
            AUGMENTATIONS[args.augmentation],
            mixup=args.mixup,
            cutmix=args.cutmix,
            label_smoothing=args.label_smoothing,
        ),
        limit_train=args.limit_train,
        limit_test=args.limit_test,
        learning_rate=args.learning_rate,
        weight_decay=args.weight_decay,
        clip_norm=args.clip_norm or None,
        precision=(args.mixed_precision or "float32").removeprefix("mixed_"),
        seed=args.seed,
        published=None,
        source="",
    ).change(dict(args.changes))
    process = join_the_others(args)
    run = fit(recipe, data_dir=args.data_dir, download=args.download, **run_arguments(args, "runs/cifar10", process))
    print(f"Test accuracy {run.metrics['top1']:.4f} after {recipe.epochs} epochs: {run.directory}")


if __name__ == "__main__":
    args = parse_arguments()
    with ending_in_a_sentence(args.debug):
        main(args)
