"""One version everywhere, the same ruff before a commit as in `make lint`, and what the wheel needs to have."""

import ast
import json
import re
import sys
import tomllib
from importlib.metadata import packages_distributions, version
from pathlib import Path

import pytest
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


def test_the_workflow_runs_the_tests_on_the_oldest_versions():
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())["jobs"]
    assert any("make lowest" in step.get("run", "") for step in jobs["lowest"]["steps"])
    assert "sh tools/lowest.sh" in (ROOT / "Makefile").read_text()


# ---------------------------------------------------------------------- dependencies

EXTRAS = PROJECT["project"]["optional-dependencies"]
# What a module of the package may import beside the dependencies: a logger's backend, where it is installed.
OPTIONAL = {"encoding_nb/records/loggers.py": {"wandb", "tensorboard"}}


def normal(requirement):
    """The name of a distribution, as all its spellings have it."""
    return re.sub(r"[-_.]+", "-", re.split(r"[\[<>=!~ ;]", requirement)[0]).lower()


def bounds(requirements):
    return {normal(each): re.search(r">=([\w.]+)", each).group(1) for each in requirements if ">=" in each}


def imported(code):
    """Top-level names of the modules that code imports, wherever it does."""
    found = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add(node.module.split(".")[0])
    return found


def code_of(path):
    if path.suffix == ".py":
        return path.read_text()
    cells = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
    lines = "\n".join("".join(cell["source"]) for cell in cells).splitlines()
    return "\n".join(line for line in lines if not line.lstrip().startswith(("%", "!")))


def undeclared(folder, declared, *, pattern="**/*.py"):
    """(file, module) of each import that is not standard, nor of this repository, nor of a declared distribution."""
    known, found = packages_distributions(), []
    files = sorted((ROOT / folder).glob(pattern))
    assert files, folder
    own = (
        {"encoding_nb", "tests"}
        | {path.stem for path in files}
        | {p.stem for p in (ROOT / "docs").glob("*.py")}
    )
    for path in files:
        name = path.relative_to(ROOT).as_posix()
        allowed = declared | {normal(each) for each in OPTIONAL.get(name, ())}
        for module in imported(code_of(path)) - own - set(sys.stdlib_module_names):
            if not {normal(each) for each in known.get(module, [module])} & allowed:
                found.append((name, module))
    return found


def test_all_that_the_package_imports_is_declared():
    assert undeclared("encoding_nb", {normal(each) for each in PROJECT["project"]["dependencies"]}) == []
    assert all(name in EXTRAS for names in OPTIONAL.values() for name in names)


@pytest.mark.parametrize("folder", ["tests", "docs", "tools", "benchmarks"])
def test_all_that_tests_and_scripts_import_is_declared(folder):
    tests = [*PROJECT["project"]["dependencies"], *(each for extra in EXTRAS.values() for each in extra)]
    assert undeclared(folder, {normal(each) for each in tests}) == []


def test_all_that_notebooks_import_is_declared():
    declared = {normal(each) for each in [*PROJECT["project"]["dependencies"], *EXTRAS["dask"]]}
    assert undeclared("notebooks", declared, pattern="**/*.ipynb") == []


def test_an_import_that_is_not_declared_is_found():
    declared = {normal(each) for each in PROJECT["project"]["dependencies"]} - {"nibabel", "huggingface-hub"}
    assert {module for _, module in undeclared("encoding_nb", declared)} == {"nibabel", "huggingface_hub"}


def test_lower_bounds_are_the_versions_of_make_lowest():
    """torch's bound is that of transformer-lens: only one version of torch was tried, see constraints-lowest.txt."""
    stated = bounds(PROJECT["project"]["dependencies"])
    for requirements in EXTRAS.values():
        stated |= bounds(requirements)
    lines = (ROOT / "constraints-lowest.txt").read_text().splitlines()
    tried = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    tried = {normal(name): number for name, number in tried.items()}

    def same(one, other):
        parts = [[int(part) for part in number.split(".")] for number in (one, other)]
        size = max(map(len, parts))
        return len({(*each, *[0] * (size - len(each))) for each in parts}) == 1

    assert stated.keys() == tried.keys()
    differing = {name for name in stated if not same(stated[name], tried[name])}
    assert differing == {"torch"}


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
