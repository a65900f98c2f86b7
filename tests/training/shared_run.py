"""One process of a training run that several devices or processes share, for tests: `shared_run.py DIRECTORY CASE`.

Two CPU devices stand for two accelerators where SHARED_RUN_DEVICES is 2; the environment tells several processes of
each other as it would anywhere.
"""

import os
import sys
from dataclasses import replace
from pathlib import Path

import keras
from small_run import RECIPE, images, train

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
CASES = {
    "plain": PLAIN,
    "everything": EVERYTHING,
    "float16": replace(PLAIN, precision="float16", epochs=2),
    "long": replace(PLAIN, epochs=10_000),
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


def main(directory, case):
    if os.environ.get("SHARED_RUN_DEVICES") == "2":
        make_two_devices()
    if keras.backend.backend() == "jax":
        from keras_mixers.training import devices_on_jax

        devices_on_jax.HEARTBEAT_SECONDS = 5
    process = join_processes()

    def forbid_writing(event, arguments):
        if process and event == "open" and set(str(arguments[1])) & set("wax+") and isinstance(arguments[0], str):
            assert not Path(arguments[0]).is_relative_to(directory), f"wrote {arguments[0]}"

    sys.addaudithook(forbid_writing)
    run = train_case(directory, case, resume=os.environ.get("SHARED_RUN_RESUME") == "1", checkpoint_minutes=0.001)
    print("test accuracy", run.metrics["top1"], "devices", run.metrics["devices"])


if __name__ == "__main__":
    main(*sys.argv[1:])
