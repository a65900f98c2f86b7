"""One process of training runs that several devices or processes share, for tests: `shared_run.py DIRECTORY CASE ...`.

The run of a case is in a folder of its name. Two CPU devices stand for two accelerators where SHARED_RUN_DEVICES is 2;
the environment tells several processes of each other as it would anywhere. The process of number SHARED_RUN_HALTS stops
for ever after the first batch of its third epoch, and that of SHARED_RUN_ASKED is asked to stop in its second.
"""

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import keras
from small_run import RECIPE, BreakOff, images, train

from keras_mixers.data import Augmentation
from keras_mixers.training import join_processes

# Random numbers that are drawn for a whole batch differ where processes draw them for their parts.
PLAIN = replace(RECIPE, augmentation=Augmentation(), clip_norm=0.5)
EVERYTHING = replace(
    RECIPE,
    augmentation=Augmentation(flip=True, rand_augment=(1, 12), mixup=0.5, cutmix=0.5, crop_scale=(0.5, 1)),
    clip_norm=0.5,
    accumulation=2 if keras.backend.backend() == "jax" else 1,
    ema=0.9,
)
CONVMIXER = {"model": "convmixer_256_8_p2_k5", "model_arguments": {"dim": 8, "depth": 1, "kernel_size": 3}}
CASES = {
    "plain": PLAIN,
    "everything": EVERYTHING,
    "convmixer": replace(PLAIN, **CONVMIXER, epochs=2),
    "accumulated": replace(PLAIN, accumulation=2, ema=0.9, epochs=2),
    "float16": replace(PLAIN, precision="float16", epochs=2),
    "bfloat16": replace(PLAIN, precision="bfloat16", epochs=2),
    "muon": replace(PLAIN, optimizer="muon", epochs=2),
}


def train_case(directory, case, **arguments):
    """19 test images: two devices get unequal parts of the last batch."""
    return train(directory, CASES[case], test_images=images(19, seed=1), **arguments)


def make_two_devices():
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    else:
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=2"


class Halt(BreakOff):
    """Sends SIGSTOP to this process, in the given epoch before the given batch, once a checkpoint is there."""

    def act(self):
        os.kill(os.getpid(), signal.SIGSTOP)


def main(directory, *cases):
    if os.environ.get("SHARED_RUN_DEVICES") == "2":
        make_two_devices()
    if keras.backend.backend() == "jax":
        from keras_mixers.training import devices_on_jax

        devices_on_jax.HEARTBEAT_SECONDS = 5
    if keras.backend.backend() == "torch":
        from keras_mixers.training import devices_on_torch

        devices_on_torch.HEARTBEAT_SECONDS = 8
    process = join_processes()

    def forbid_writing(event, arguments):
        if process and event == "open" and set(str(arguments[1])) & set("wax+") and isinstance(arguments[0], str):
            assert not Path(arguments[0]).is_relative_to(directory), f"wrote {arguments[0]}"

    sys.addaudithook(forbid_writing)
    stops = []
    if os.environ.get("SHARED_RUN_HALTS") == str(process):
        stops = [Halt(2, 1)]
    if os.environ.get("SHARED_RUN_ASKED") == str(process):
        stops = [BreakOff(1, 1, signal.SIGTERM)]
    settings = {"resume": os.environ.get("SHARED_RUN_RESUME") == "1", "checkpoint_minutes": 0.001, "callbacks": stops}
    for case in cases:
        run = train_case(Path(directory, case), case, **settings)
        print("test accuracy", run.metrics["top1"], "devices", run.metrics["devices"])


if __name__ == "__main__":
    main(*sys.argv[1:])
