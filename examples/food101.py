"""Train a network of the SplitMixer paper on Food-101, 75,750 photographs of 224 x 224 pixels.

    KERAS_BACKEND=jax python examples/food101.py

is SplitMixer-I-256/8 with patches of 7 pixels, 100 epochs. For each `--model` the paper has the accuracy in %:

    convmixer       74.59
    splitmixer_i    73.56
    splitmixer_ii   71.74
    splitmixer_iii  72.78
    splitmixer_iv   72.92

The images come from TensorFlow Datasets, which fetches them once; `--data-dir` says where they are. `--resume`
resumes an interrupted run; `--set` changes any field of the recipe, such as `--set precision=float32`.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # before TensorFlow starts: it would tell of itself
if os.environ.get("KERAS_BACKEND", "tensorflow") != "tensorflow":
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # it feeds the images only
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # PyTorch's threads do not spin while they wait

from keras_mixers.commands.command import ending_in_a_sentence
from keras_mixers.commands.training_arguments import join_the_others, recipe_parser, run_arguments
from keras_mixers.training import fit, get_recipe

args = recipe_parser(__doc__, model="splitmixer_i").parse_args()
with ending_in_a_sentence(args.debug):
    recipe = get_recipe(f"food101_{args.model}").change(dict(args.changes))
    process = join_the_others(args)
    run = fit(recipe, data_dir=args.data_dir, download=args.download, **run_arguments(args, "runs/food101", process))
    print(f"Test accuracy {run.metrics['top1']:.4f}: {run.directory}")
