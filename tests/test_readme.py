"""README.md: its code runs, its commands take the arguments that it shows, and what it links to is there."""

import argparse
import doctest
import re
import runpy
import shlex
import sys
import tomllib
from pathlib import Path

import pytest
from drawn_images import scenes
from PIL import Image
from safetensors.torch import save
from stand_in_hub import StandInHub

import keras_mixers

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PROGRAMS = {"-m keras_mixers": "keras_mixers/__main__.py"}  # and an example is its own
COMMANDS = re.findall(r"\bpython (-m keras_mixers|examples/\w+\.py)\b([^&`\n]*)", README.replace("\\\n", ""))


def blocks(language):
    """Give the blocks of code in a language, each at its own line, so that errors tell the README's."""
    for block in re.finditer(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL):
        line = README.count("\n", 0, block.start(1))
        yield pytest.param("\n" * line + block[1], id=f"line {line + 1}")


@pytest.fixture(scope="module")
def surroundings(tmp_path_factory):
    """What the code finds: photographs in the working directory, and a hub with a network of the published size."""
    folder = tmp_path_factory.mktemp("readme")
    first, *others = map(Image.fromarray, scenes(5, 240))
    first.save(folder / "dog.jpg")
    for i, image in enumerate(others):
        path = folder / "photos" / "train" / ("cat", "dog")[i % 2] / f"{i}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)
    state = keras_mixers.to_torch_state_dict(keras_mixers.create_model("convmixer_768_32"), "timm")
    files = {"timm/convmixer_768_32.in1k": {"model.safetensors": save(state)}}
    with StandInHub(files) as hub, pytest.MonkeyPatch.context() as patch:
        hub.use(patch, folder / "cache")
        patch.chdir(folder)
        yield


@pytest.mark.any_backend
@pytest.mark.parametrize("code", blocks("python"))
def test_python_runs(code, surroundings):
    exec(compile(code, str(ROOT / "README.md"), "exec"), {})


@pytest.mark.parametrize("code", blocks("pycon"))
def test_pycon_is_a_doctest(code):
    found = doctest.DocTestRunner().run(doctest.DocTestParser().get_doctest(code, {}, "README.md", "README.md", 0))
    assert found.attempted > 0
    assert found.failed == 0


class ParsedError(Exception):
    """The arguments are understood; the program would begin its work now."""


@pytest.mark.parametrize(("program", "arguments"), COMMANDS)
def test_commands_take_their_arguments(program, arguments, monkeypatch):
    parse = argparse.ArgumentParser.parse_args

    def parse_only(*given):
        parse(*given)
        raise ParsedError

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_only)
    monkeypatch.setattr(sys, "argv", [program, *shlex.split(arguments)])
    with pytest.raises(ParsedError):
        runpy.run_path(str(ROOT / PROGRAMS.get(program, program)), run_name="__main__")


def test_extras_are_those_of_the_project():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    shown = {extra for names in re.findall(r"\.\[([\w,]+)\]", README) for extra in names.split(",")}
    assert shown
    assert shown <= set(extras)


def test_files_that_it_names_exist():
    links = re.findall(r"\]\((?!https?:)([^)#]+)", README)
    paths = re.findall(r"`((?:docs|examples|keras_mixers|tests)/[\w/.]+)", README)
    assert links
    assert paths
    assert [name for name in links + paths if not (ROOT / name).exists()] == []
