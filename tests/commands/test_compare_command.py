"""`compare` on the command line: a data set of TFDS, or images of your own."""

import pytest
from drawn_images import write_tfds

pytestmark = pytest.mark.backend_independent
SMALL = ["--epochs", 1, "--batch-size", 8, "--seeds", 3, "--quiet", "--set", "model_arguments.dim=8"]
MODELS = ["--models", "splitmixer_i_256_8", "mlp_mixer_64_8_p4"]


def test_compares_on_a_data_set_and_only_reads_what_is_there(run, refused, tmp_path):
    write_tfds("cifar10", tmp_path / "data", {"train": 20, "test": 10}, 32)
    arguments = ["compare", "--dataset", "cifar10", "--data-dir", tmp_path / "data", *MODELS, *SMALL]
    arguments += ["model_arguments.blocks=1", "precision=float32", "--output-dir", tmp_path / "runs"]
    table = run(*arguments)
    assert "| `splitmixer_i_256_8` | SplitMixer-I |" in table
    assert "| `mlp_mixer_64_8_p4` | MLP-Mixer |" in table
    assert "with dataset=cifar10, epochs=1, batch_size=8, model_arguments.dim=8" in table
    assert {path.name for path in (tmp_path / "runs").iterdir()} >= {"comparison.csv", "comparison.md"}
    assert "resume it with resume=True (--resume)" in refused(*arguments)
    again = run(*arguments, "--resume")
    assert again.splitlines()[2].split("|")[1:7] == table.splitlines()[2].split("|")[1:7]


def test_compares_on_images_of_your_own(run, photos, tmp_path):
    changes = ["model_arguments.blocks=1", "pixels.size=16", "precision=float32"]
    arguments = ["compare", "--images", photos, "--validation-part", 0.25, *MODELS[:2], *SMALL, *changes]
    assert "| `splitmixer_i_256_8` |" in run(*arguments, "--output-dir", tmp_path)


def test_refuses(refused, photos, tmp_path):
    assert "two sources" in refused("compare", "--dataset", "cifar10", "--images", photos)
    where = ["--output-dir", tmp_path, "--data-dir", tmp_path, "--no-download"]
    assert "did you mean" in refused("compare", "--models", "splitmixer_6", *where)
    assert "did you mean" in refused("compare", "--recipe", "cifar10_splitmixer_6", *where)
