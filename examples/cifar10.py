"""Train a SplitMixer or a ConvMixer on CIFAR-10.

    KERAS_BACKEND=jax python examples/cifar10.py

is the SplitMixer paper's recipe for SplitMixer-I-256/8 (93.91 % published, 100 epochs; for a GPU). ConvMixer's authors'
25 epochs (92.60 % published) are

    python examples/cifar10.py --model ConvMixer --epochs 25 --clip-norm 0

and a network that two cores train in minutes is

    python examples/cifar10.py --dim 128 --blocks 4 --patch-size 4 --epochs 8 --limit-train 10000 --limit-test 2000 \
        --batch-size 128 --learning-rate 0.01 --augmentation flip

The images come from TensorFlow Datasets: `--download` fetches them once, `--data-dir` says where they are. The output
directory gets `model.keras`, `history.csv` (one row an epoch) and `metrics.json`.
"""

import argparse
import json
import math
import time
from pathlib import Path

import keras

import keras_mixers
from keras_mixers.data import Augmentation, eval_batches, load_tfds, train_batches
from keras_mixers.training import AdamW, HistoryWriter, TriangularSchedule

AUGMENTATIONS = {
    "none": {},
    "flip": {"flip": True},
    "randaugment": {"flip": True, "rand_augment": (2, 12)},  # SplitMixer's; ConvMixer's 25 epochs
    "strong": {"flip": True, "rand_augment": (2, 12), "color_jitter": 0.2, "random_erasing": 0.2},  # ConvMixer's 100
}
MODELS = [
    name for name in keras_mixers.__all__ if name.endswith(("MixerI", "II", "IV", "V", "ConvMixer", "StrideMixer"))
]


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    model = parser.add_argument_group("model")
    model.add_argument("--model", choices=MODELS, default="SplitMixerI")
    model.add_argument("--dim", type=int, default=256, help="number of channels")
    model.add_argument("--blocks", type=int, default=8, help="number of blocks (ConvMixer's depth)")
    model.add_argument("--kernel-size", type=int, default=5, help="in patches")
    model.add_argument("--patch-size", type=int, default=2, help="in pixels")
    model.add_argument("--ratio", type=float, help="width of a segment, I and V")
    model.add_argument("--segments", type=int, help="number of segments, II to IV")
    model.add_argument("--mixed-precision", choices=["mixed_float16", "mixed_bfloat16"])
    run = parser.add_argument_group("training")
    run.add_argument("--epochs", type=int, default=100)
    run.add_argument("--batch-size", type=int, default=512)
    run.add_argument("--learning-rate", type=float, default=0.05, help="the schedule's maximum")
    run.add_argument("--weight-decay", type=float, default=0.005)
    run.add_argument("--clip-norm", type=float, default=1.0, help="0 for no clipping")
    run.add_argument("--augmentation", choices=AUGMENTATIONS, default="randaugment")
    run.add_argument("--mixup", type=float, default=0.0, help="alpha; with --cutmix, each batch gets one of the two")
    run.add_argument("--cutmix", type=float, default=0.0, help="alpha")
    run.add_argument("--label-smoothing", type=float, default=0.0)
    run.add_argument("--seed", type=int, default=42)
    data = parser.add_argument_group("data and output")
    data.add_argument("--data-dir", help="where TensorFlow Datasets keeps its data")
    data.add_argument("--download", action="store_true", help="fetch CIFAR-10 if it is not there")
    data.add_argument("--limit-train", type=int, help="use only the first images")
    data.add_argument("--limit-test", type=int)
    data.add_argument("--output-dir", type=Path, default=Path("runs/cifar10"))
    data.add_argument("--tensorboard", action="store_true", help="write logs for TensorBoard to the output directory")
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    keras.utils.set_random_seed(args.seed)
    args.output_dir.mkdir(parents=True, exist_ok=True)

    # Images: each paper normalises with a deviation of its own.
    pixels = keras_mixers.find_preset(
        "convmixer_256_8_p2_k5" if args.model == "ConvMixer" else "splitmixer_i_256_8"
    ).pixels
    scale = {"mean": pixels.mean, "std": pixels.std}
    train_images = load_tfds("cifar10", "train", args.data_dir, download=args.download, limit=args.limit_train)
    test_images = load_tfds("cifar10", "test", args.data_dir, limit=args.limit_test)
    augmentation = Augmentation(
        **AUGMENTATIONS[args.augmentation],
        mixup=args.mixup,
        cutmix=args.cutmix,
        label_smoothing=args.label_smoothing,
    )
    train = train_batches(
        train_images, args.batch_size, pixels.size, augmentation=augmentation, seed=args.seed, **scale
    )
    test = eval_batches(test_images, args.batch_size, pixels.size, **scale)

    # Model
    options = {"ratio": args.ratio, "segments": args.segments, "dtype": args.mixed_precision}
    model = getattr(keras_mixers, args.model)(
        args.dim,
        args.blocks,
        args.kernel_size,
        args.patch_size,
        num_classes=train_images.num_classes,
        input_shape=(pixels.size, pixels.size, 3),
        data_format="channels_last",
        **{name: value for name, value in options.items() if value is not None},
    )
    model.summary()

    # Training: AdamW on all parameters, biases and norms too, as both papers do.
    steps_per_epoch = math.ceil(train_images.count / args.batch_size)
    model.compile(
        optimizer=AdamW(
            TriangularSchedule(args.learning_rate, args.epochs, steps_per_epoch),
            weight_decay=args.weight_decay,
            epsilon=1e-8,
            global_clipnorm=args.clip_norm or None,
        ),
        loss=keras.losses.CategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    callbacks = [HistoryWriter(args.output_dir / "history.csv")]
    if args.tensorboard:
        callbacks.append(keras.callbacks.TensorBoard(args.output_dir / "tensorboard"))
    start = time.perf_counter()
    model.fit(train, validation_data=test, epochs=args.epochs, callbacks=callbacks)
    seconds = time.perf_counter() - start

    # Results
    test_loss, test_accuracy = model.evaluate(test, verbose=0)
    model.save(args.output_dir / "model.keras")
    metrics = {
        "test_accuracy": test_accuracy,
        "test_loss": test_loss,
        "params": sum(math.prod(weight.shape) for weight in model.trainable_weights),
        "seconds": seconds,
        "backend": keras.backend.backend(),
        "seed": args.seed,
        "arguments": vars(args),
    }
    (args.output_dir / "metrics.json").write_text(json.dumps(metrics, indent=2, default=str) + "\n")
    print(f"Test accuracy {test_accuracy:.4f} after {args.epochs} epochs, {seconds:.0f} s: {args.output_dir}")


if __name__ == "__main__":
    main(parse_arguments())
