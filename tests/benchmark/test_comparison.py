"""`compare` trains networks alike, skips what is finished, resumes the rest, and says what each reaches and costs."""

import csv
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from training.small_run import CLASSES, RECIPE, BreakOff, images

from keras_mixers import profile
from keras_mixers.benchmark import compare, comparison
from keras_mixers.benchmark.comparison import markdown, recipe_of
from keras_mixers.models import PRESETS, SplitMixerI, SplitMixerIV, get_preset
from keras_mixers.training import RECIPES, read_history

pytestmark = pytest.mark.backend_independent
MODELS = ("tiny_i", "tiny_iv")


@pytest.fixture(scope="module", autouse=True)
def table():
    """Two networks and a recipe of seconds for all tests of this file."""
    sizes = {"dim": 8, "blocks": 1, "kernel_size": 3, "patch_size": 2, "num_classes": 10}
    like = get_preset("splitmixer_i_256_8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PRESETS, "tiny_i", replace(like, builder=SplitMixerI, arguments={**sizes, "ratio": 2 / 3}))
        patch.setitem(PRESETS, "tiny_iv", replace(like, builder=SplitMixerIV, arguments={**sizes, "segments": 2}))
        patch.setitem(RECIPES, "tiny", replace(RECIPE, model="tiny_i", model_arguments={}, epochs=2, published=99.0))
        patch.setattr(comparison, "ROUNDS", 3)
        yield


def run(directory, models=MODELS, **arguments):
    arguments = {"train_images": images(), "test_images": images(20, seed=1), "verbose": False, **arguments}
    return compare(models, "tiny", output_dir=directory, **arguments)


@pytest.fixture(scope="module")
def unbroken(table, tmp_path_factory):
    directory = tmp_path_factory.mktemp("compared")
    return directory, run(directory, seeds=(1, 2))


def columns(rows):
    return [(row.model, row.family, row.params, row.macs, row.top1, row.top1_by_seed, row.seeds) for row in rows]


def test_gives_what_each_run_reached_and_what_each_network_costs(unbroken):
    directory, rows = unbroken
    assert [(row.model, row.family, row.epochs) for row in rows] == [
        ("tiny_i", "SplitMixer-I", 2), ("tiny_iv", "SplitMixer-IV", 2),
    ]  # fmt: skip
    for row in rows:
        counted = profile(
            get_preset(row.model).builder(**{**get_preset(row.model).arguments, "num_classes": len(CLASSES)}), (8, 8, 3)
        )
        assert (row.params, row.macs) == (counted.params, counted.macs)
        metrics = [json.loads((directory / f"{row.model}_seed_{seed}" / "metrics.json").read_text()) for seed in (1, 2)]
        np.testing.assert_allclose(row.top1_by_seed, [100 * each["top1"] for each in metrics], atol=5e-3)
        np.testing.assert_allclose(row.top1, np.mean(row.top1_by_seed), atol=1e-2)
        recipes = [{**each["recipe"], "seed": 0, "model": ""} for each in metrics]
        assert recipes[0] == recipes[1]
        assert (recipes[0]["published"], recipes[0]["source"]) == (None, "")
        assert 0 < row.latency_ms < 1e4
        assert row.images_per_second > 1


def test_leaves_a_table_and_a_figure(unbroken):
    directory, rows = unbroken
    with (directory / "comparison.csv").open() as file:
        written = list(csv.DictReader(file))
    assert [(each["model"], int(each["params"]), float(each["top1"])) for each in written] == [
        (row.model, row.params, row.top1) for row in rows
    ]
    assert written[0]["top1_by_seed"].split() == [str(value) for value in rows[0].top1_by_seed]
    assert written[0]["seeds"] == "1 2"
    assert (directory / "comparison.md").read_text() == markdown(rows) + "\n"
    assert f"| `tiny_iv` | SplitMixer-IV | {rows[1].params:,} | {rows[1].macs:,} | {rows[1].top1:.2f} |" in markdown(
        rows
    )
    pytest.importorskip("matplotlib")
    assert (directory / "comparison.png").read_bytes().startswith(b"\x89PNG")


def test_finished_runs_are_skipped_and_the_rest_resumed(unbroken, tmp_path):
    directory, rows = unbroken
    shutil.copytree(directory / "tiny_iv_seed_1", tmp_path / "tiny_iv_seed_1")
    before = (tmp_path / "tiny_iv_seed_1" / "model.keras").stat().st_mtime_ns
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, seeds=(1, 2), resume=True, callbacks=[BreakOff(1, 0)])
    assert len(read_history(tmp_path / "tiny_i_seed_1" / "history.csv")) == 1
    assert not (tmp_path / "comparison.csv").exists()
    assert columns(run(tmp_path, seeds=(1, 2), resume=True)) == columns(rows)
    assert (tmp_path / "tiny_iv_seed_1" / "model.keras").stat().st_mtime_ns == before


def test_refuses_before_anything_is_trained(unbroken, tmp_path):
    directory, _ = unbroken
    with pytest.raises(ValueError, match="holds a run already"):
        run(directory, seeds=(1, 2))
    with pytest.raises(ValueError, match=r"began with epochs=2; resume it with the same recipe"):
        run(directory, models=MODELS[::-1], seeds=(3, 2), resume=True, changes={"epochs": 1})
    with pytest.raises(ValueError, match="other train_images"):
        run(directory, seeds=(1, 2), resume=True, train_images=images(24))
    refused = [
        (["tiny_i", "tiny_6"], {}, "no model named 'tiny_6'"),
        (["tiny_i", "mlp_mixer_64_8_p4"], {"changes": {"model_arguments.ratio": 0.5}}, "no argument 'ratio'"),
        ([], {}, "models and seeds must name at least one each"),
        (MODELS, {"seeds": ()}, "models and seeds must name at least one each"),
        (MODELS, {"seeds": (1, -1)}, "seed must be a whole number of at least 0"),
        (MODELS, {"changes": {"seed": 1}}, "sets model and seed itself"),
        (["tiny_i", "convmixer_256_8_p4_k9"], {"changes": {"pixels.size": 3}}, "smaller than a patch|at least"),
    ]
    for models, arguments, sentence in refused:
        with pytest.raises(ValueError, match=sentence):
            run(tmp_path, models, **arguments)
    assert not list(tmp_path.iterdir())


def test_a_data_set_brings_the_size_of_its_images():
    assert (
        recipe_of("cifar10_splitmixer_i_fast", {"dataset": "cifar10"}).pixels
        == RECIPES["cifar10_splitmixer_i_fast"].pixels
    )
    recipe = recipe_of("cifar10_splitmixer_i_fast", {"dataset": "food101", "epochs": 3})
    assert (recipe.dataset, recipe.pixels.size, recipe.test_split, recipe.epochs) == ("food101", 224, "validation", 3)
