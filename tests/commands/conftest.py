"""The command line in this process, drawn images in class folders, and a small network that `train` made of them."""

import pytest
from drawn_images import write_class_folders

from keras_mixers.__main__ import main

SMALL = "model_arguments.dim=8 model_arguments.blocks=2 model_arguments.kernel_size=3 pixels.size=16 precision=float32"


@pytest.fixture
def run(capsys):
    """Run a command that succeeds, and give what it prints."""

    def run(*arguments):
        capsys.readouterr()
        assert main([*map(str, arguments)]) == 0
        return capsys.readouterr().out

    return run


@pytest.fixture
def refused(capsys):
    """Run a command that does not do what it is asked, and give the sentence in which it says so."""

    def refused(*arguments, status=2):
        capsys.readouterr()
        assert main([*map(str, arguments)]) == status
        captured = capsys.readouterr()
        assert not captured.out
        assert captured.err.count("\n") == 1
        return captured.err.rstrip("\n")

    return refused


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """A folder of 24 images of three classes."""
    return write_class_folders(tmp_path_factory.mktemp("photos"), 24, 20)


@pytest.fixture(scope="session")
def train_arguments(photos):
    """Give the arguments that train a small network on these images, in a second."""

    def train_arguments(folder, *others):
        changes = ["--set", *SMALL.split(), "augmentation.rand_augment=None", "learning_rate=0.02"]
        arguments = ["train", "cifar10_splitmixer_i", "--images", photos, "--validation-part", 0.25, "--quiet"]
        return [*arguments, "--output-dir", folder, "--epochs", 3, "--batch-size", 8, *changes, *others]

    return train_arguments


@pytest.fixture(scope="session")
def trained(train_arguments, tmp_path_factory):
    """The folder of a run of `train`."""
    folder = tmp_path_factory.mktemp("runs") / "photos"
    assert main([*map(str, train_arguments(folder))]) == 0
    return folder
