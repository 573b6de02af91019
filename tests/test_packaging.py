"""One version everywhere, the same ruff before a commit as in `make lint`, and what the wheel needs to have."""

import re
import tomllib
from importlib.metadata import version
from pathlib import Path

import yaml

import encoding_nb

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_the_version_comes_from_one_place():
    assert PROJECT["project"]["dynamic"] == ["version"] and "version" not in PROJECT["project"]
    assert PROJECT["tool"]["setuptools"]["dynamic"]["version"]["attr"] == "encoding_nb._version.__version__"
    assert version("encoding_nb") == encoding_nb.__version__
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == encoding_nb.__version__
    assert f"## {encoding_nb.__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_pre_commit_runs_the_ruff_of_make_lint():
    (hook,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    pinned = re.search(r"(?m)^ruff==(.+)$", (ROOT / "constraints.txt").read_text()).group(1)
    assert hook["rev"] == f"v{pinned}"
    assert [each["id"] for each in hook["hooks"]] == ["ruff-check", "ruff-format"]


def test_the_workflow_runs_what_guards_main():
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())["jobs"]
    assert jobs["linux"]["strategy"]["matrix"]["python"] == ["3.11", "3.12", "3.13", "3.14"]
    assert any(step.get("run") == "bash .ci/run" for step in jobs["linux"]["steps"])
    assert jobs["smoke"]["strategy"]["matrix"]["os"] == ["macos-latest", "windows-latest"]
    guards = (ROOT / ".ci" / "run").read_text()
    for target in ("lint", "demo", "wheel-check", "notebooks", "test"):
        assert f"make {target}" in guards


def test_types_and_the_notebook_are_shipped():
    assert (ROOT / "encoding_nb" / "py.typed").is_file()
    assert "py.typed" in PROJECT["tool"]["setuptools"]["package-data"]["encoding_nb"]
    notebook = re.search(r'NOTEBOOK = Path\("notebooks"\) / "(.+)"', (ROOT / "setup.py").read_text()).group(1)
    assert f"notebooks/{notebook}" in (ROOT / "MANIFEST.in").read_text()
    assert (ROOT / "notebooks" / notebook).is_file()


def test_a_report_of_a_fault_asks_for_the_error_and_the_provenance():
    form = yaml.safe_load((ROOT / ".github" / "ISSUE_TEMPLATE" / "bug.yml").read_text())
    asked = {each["id"]: each["attributes"] for each in form["body"]}
    assert (
        asked["error"]["label"] == "The error message" and "result.provenance" in asked["provenance"]["label"]
    )
