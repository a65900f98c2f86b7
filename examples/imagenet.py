"""Train a network of either paper on ImageNet, as ConvMixer's authors do.

    KERAS_BACKEND=jax python examples/imagenet.py --data-dir /data/tfds

is ConvMixer-1536/20, 150 epochs with 640 images a step, for several GPUs. For each `--model` the papers have the
accuracy in %:

    convmixer_1536_20      81.37
    convmixer_768_32       80.16
    convmixer_1024_20      76.94
    splitmixer_i_1536_20   79.35
    splitmixer_i_768_32    75.05

ImageNet is not to be had without an account, so TensorFlow Datasets has to find its archives: put
ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar of https://image-net.org into /data/tfds/downloads/manual, of which
the first run prepares the data set "imagenet2012". On one GPU, `--set accumulation=10` computes a step in ten batches
of 64 images. `--resume` resumes an interrupted run.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # before TensorFlow starts: it would tell of itself
if os.environ.get("KERAS_BACKEND", "tensorflow") != "tensorflow":
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # it feeds the images only
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # PyTorch's threads do not spin while they wait

from keras_mixers.commands.command import ending_in_a_sentence
from keras_mixers.commands.training_arguments import join_the_others, recipe_parser, run_arguments
from keras_mixers.training import fit, get_recipe

args = recipe_parser(__doc__, model="convmixer_1536_20").parse_args()
with ending_in_a_sentence(args.debug):
    recipe = get_recipe(f"imagenet_{args.model}").change(dict(args.changes))
    process = join_the_others(args)
    run = fit(recipe, data_dir=args.data_dir, download=args.download, **run_arguments(args, "runs/imagenet", process))
    print(f"Test accuracy {run.metrics['top1']:.4f}: {run.directory}")
