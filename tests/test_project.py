"""What the files beside the package say agrees with the package."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

import keras_mixers

pytestmark = pytest.mark.backend_independent
ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_the_citation_is_of_this_version_and_of_both_papers():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == keras_mixers.__version__
    assert citation["license"] == PROJECT["license"]
    assert citation["repository-code"] == PROJECT["urls"]["Repository"]
    assert [paper["title"].split(":")[0] for paper in citation["references"]] == [
        "Patches Are All You Need?",
        "SplitMixer",
    ]


def test_the_changelog_has_this_version():
    assert f"\n## {keras_mixers.__version__}\n" in (ROOT / "CHANGELOG.md").read_text()


def test_pre_commit_has_the_ruff_of_ci():
    (hook,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert re.search(rf"^ruff=={hook['rev'].removeprefix('v')}$", (ROOT / ".ci" / "constraints.txt").read_text(), re.M)


def test_the_repository_has_one_address():
    site = yaml.load((ROOT / "mkdocs.yml").read_text(), yaml.BaseLoader)
    (link,) = site["extra"]["social"]
    assert link["link"] == PROJECT["urls"]["Repository"]


def test_the_workflow_calls_what_is_there():
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "tests.yml").read_text())
    called = [step["run"] for job in workflow["jobs"].values() for step in job["steps"] if "run" in step]
    assert called
    for command in called:
        assert (ROOT / re.search(r"\.ci/[\w.]+", command)[0]).is_file()
