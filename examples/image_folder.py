"""Train a network on images of your own.

    KERAS_BACKEND=jax python examples/image_folder.py photos

`photos` has a folder of images for each class; a tenth of each is set aside and evaluated. Or it has `train` and `val`
with such folders. To start from trained weights with a new head, and keep those of the first blocks as they are:

    python examples/image_folder.py photos --weights runs/food101/model.keras --freeze 4
    python examples/image_folder.py photos --model convmixer_768_32 --weights imagenet --freeze 24

The trained network knows its classes and how its images are cut:

    python -m keras_mixers predict runs/image_folder/model.keras dog.jpg
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # before TensorFlow starts: it would tell of itself
if os.environ.get("KERAS_BACKEND", "tensorflow") != "tensorflow":
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # it feeds the images only
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # PyTorch's threads do not spin while they wait

import argparse
from dataclasses import replace

from keras_mixers import get_preset
from keras_mixers.commands.command import ending_in_a_sentence, whole_number
from keras_mixers.commands.training_arguments import add_run_arguments, join_the_others, run_arguments
from keras_mixers.data import Augmentation, load_folders
from keras_mixers.data.damaged import naming_damaged
from keras_mixers.training import Recipe, fit

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("folder", help="the images")
parser.add_argument("--model", default="splitmixer_i_256_8_p7_k7", metavar="NAME", help="(default: %(default)s)")
parser.add_argument("--image-size", type=whole_number, metavar="N", help="in pixels (default: the network's)")
parser.add_argument("--weights", metavar="FILE", help="trained weights of that network to start from")
parser.add_argument("--freeze", type=int, default=0, metavar="N", help="blocks, and the embedding, that keep them")
add_run_arguments(parser)
args = parser.parse_args()

with ending_in_a_sentence(args.debug):
    settings = run_arguments(args, "runs/image_folder", join_the_others(args))
    pixels = get_preset(args.model).pixels
    recipe = Recipe(
        model=args.model,
        dataset="folder",
        pixels=replace(pixels, size=args.image_size or pixels.size),
        augmentation=Augmentation(crop_scale=(0.25, 1.0), flip=True, rand_augment=(2, 12)),
        epochs=50,
        batch_size=64,
        learning_rate=0.01,
        clip_norm=1.0,
    ).change(dict(args.changes))
    images = load_folders(args.folder, seed=recipe.seed)
    with naming_damaged(*images.values()):
        run = fit(recipe, **images, weights=args.weights, freeze=args.freeze, **settings)
    print(f"Test accuracy {run.metrics['top1']:.4f}: {run.directory}")
