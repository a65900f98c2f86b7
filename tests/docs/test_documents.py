"""README.md and docs/: their code runs, their commands take the arguments that they show, what they name is there."""

import argparse
import doctest
import re
import runpy
import shlex
import sys
import tomllib
from pathlib import Path
from unittest import mock

import keras
import numpy as np
import pytest
from drawn_images import scenes, write_tfds
from PIL import Image
from safetensors.torch import save
from stand_in_hub import StandInHub

import keras_mixers

ROOT = Path(__file__).parents[2]
DOCUMENTS = {str(path.relative_to(ROOT)): path.read_text() for path in [ROOT / "README.md", *ROOT.glob("docs/**/*.md")]}
COMMANDS = sorted(
    {
        command
        for text in DOCUMENTS.values()
        for command in re.findall(r"\bpython (-m keras_mixers[\w.]*|[\w/]+\.py)([^&`\n]*)", text.replace("\\\n", ""))
    }
)


def blocks(document):
    """Give language, line and code of each block of Python in a document."""
    text = DOCUMENTS[document]
    for block in re.finditer(r"^```(python|pycon)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        yield block[1], text.count("\n", 0, block.start(2)), block[2]


@pytest.fixture(scope="module")
def surroundings(tmp_path_factory):
    """What the code finds: photographs, a little CIFAR-10, and a hub with a network of the published size."""
    folder = tmp_path_factory.mktemp("documents")
    first, *others = map(Image.fromarray, scenes(5, 240))
    first.save(folder / "dog.jpg")
    for i, image in enumerate(others):
        path = folder / "photos" / "train" / ("cat", "dog")[i % 2] / f"{i}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)
    write_tfds("cifar10", folder / "tensorflow_datasets", {"train": 8, "test": 4}, 32)
    state = keras_mixers.to_torch_state_dict(keras_mixers.create_model("convmixer_768_32"), "timm")
    files = {"timm/convmixer_768_32.in1k": {"model.safetensors": save(state)}}
    with StandInHub(files) as hub, pytest.MonkeyPatch.context() as patch:
        hub.use(patch, folder / "cache")
        patch.setenv("HOME", str(folder))
        patch.chdir(folder)
        yield


@pytest.mark.backend_independent
@pytest.mark.parametrize("document", [name for name in DOCUMENTS if any(blocks(name))])
@mock.patch.dict(keras_mixers.export.FORMATS)  # to which a page adds its own, and to these as well
@mock.patch.dict(keras_mixers.models.PRESETS)
def test_code_runs(document, surroundings):
    """Blocks of a page follow one another, as they are read; those of README.md are taken one by one."""
    names = {}
    for language, line, code in blocks(document):
        names = {} if document == "README.md" else names
        if language == "python":
            exec(compile("\n" * line + code, document, "exec"), names)
        else:
            test = doctest.DocTestParser().get_doctest(code, names, document, document, line)
            found = doctest.DocTestRunner().run(test, clear_globs=False)
            assert found.attempted > 0
            assert found.failed == 0
            names.update(test.globs)


class ParsedError(Exception):
    """The arguments are understood; the program would begin its work now."""


@pytest.mark.backend_independent
@pytest.mark.parametrize(("program", "arguments"), COMMANDS)
def test_commands_take_their_arguments(program, arguments, monkeypatch):
    module = ROOT / program.removeprefix("-m ").replace(".", "/")
    paths = [ROOT / program] if program.endswith(".py") else [module.with_suffix(".py"), module / "__main__.py"]
    (path,) = filter(Path.exists, paths)
    if "ArgumentParser" not in path.read_text():  # it would begin its work
        assert shlex.split(arguments, comments=True) == []
        return
    parse = argparse.ArgumentParser.parse_args

    def parse_only(*given):
        parse(*given)
        raise ParsedError

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_only)
    monkeypatch.setattr(sys, "argv", [program, *shlex.split(arguments, comments=True)])
    with pytest.raises(ParsedError):
        runpy.run_path(str(path), run_name="__main__")


@pytest.mark.backend_independent
def test_extras_are_those_of_the_project():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    found = re.findall(r"(?:\.|keras-mixers)\[([\w,]+)\]", "\n".join(DOCUMENTS.values()))
    shown = {extra for names in found for extra in names.split(",")}
    assert shown
    assert shown <= set(extras)


@pytest.mark.backend_independent
@pytest.mark.parametrize("document", DOCUMENTS)
def test_files_that_it_names_exist(document):
    text = DOCUMENTS[document]
    links = [(ROOT / document).parent / link for link in re.findall(r"\]\((?!https?:)([^)#]+)", text)]
    paths = [ROOT / path for path in re.findall(r"`((?:docs|examples|keras_mixers|tests|\.ci)/[\w/.]+)", text)]
    assert [path for path in links + paths if not path.exists()] == []


def test_a_conv_mixer_in_280_characters(randomize, rng):
    """It gives what ours gives, and its norms learn the same means and variances."""
    page = DOCUMENTS["docs/papers/convmixer.md"]
    code = re.search(r"<!-- 280 characters -->\n```python\n(.*?)\n```", page, re.DOTALL)[1]
    assert len(code) == 280
    names = {}
    exec(f"from keras.layers import *\nfrom keras import Model\n{code}", names)
    short, ours = (make(8, 2, 3, 2, 5) for make in (names["ConvMixer"], keras_mixers.ConvMixer))
    short.set_weights(randomize(ours).get_weights())
    images = rng.normal(size=(4, 16, 16, 3)).astype("float32")
    for training in (False, True, False):
        logits = [keras.ops.convert_to_numpy(model(images, training=training)) for model in (short, ours)]
        np.testing.assert_allclose(*logits, rtol=1e-5, atol=1e-5)


@pytest.mark.backend_independent
def test_the_page_of_the_command_line_is_that_of_the_parsers():
    page = runpy.run_path(str(ROOT / "docs" / "scripts" / "commands.py"))["page"]()
    assert DOCUMENTS["docs/commands.md"] == page, "python docs/scripts/commands.py writes it"
