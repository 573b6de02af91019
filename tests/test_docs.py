"""Pages agree with the code: links, names of files and functions, words for pictures, what is made from the code."""

import dataclasses
import inspect
import json
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import encoding_nb

from .test_imports import FOLDERS, MODULES, PACKAGE

ROOT = Path(__file__).resolve().parent.parent
LISTED = subprocess.run(
    ["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True, check=False
).stdout.split()
PAGES = sorted(
    {ROOT / name for name in LISTED if (ROOT / name).is_file()} | set((ROOT / "docs").glob("*.md"))
)
# said by the name alone
PLAIN = set(
    "ax result results assembly settings path results_dir progress result_a result_b model_name".split()
)

sys.path.insert(0, str(ROOT / "docs"))
import make_api  # noqa: E402
import make_architecture  # noqa: E402


def by_name(paths):
    return pytest.mark.parametrize("path", paths, ids=lambda p: str(p.relative_to(ROOT)))


@by_name(PAGES)
def test_links_lead_somewhere(path):
    text = re.sub(r"(?s)```.*?```", "", path.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
        if not re.match(r"[a-z]+:", target):
            assert (path.parent / target).exists(), f"{target} is not there"


@by_name(PAGES)
def test_pictures_are_described(path):
    for words, target in re.findall(r"!\[([^\]]*)\]\(([^)]+)\)", path.read_text(encoding="utf-8")):
        assert len(words) >= 20, f"{target} needs words for those who do not see it"


def test_glossary_is_in_order_and_explains_the_panels_words():
    terms = re.findall(r"(?m)^\| \*\*(.+?)\*\*", (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8"))
    plain = [term.lower() for term in terms]
    letters = [re.sub("[^a-z0-9]", "", term) for term in plain]
    assert letters == sorted(letters)
    for word in (
        "lookback",
        "layer",
        "trimming",
        "tr",
        "voxel",
        "noise ceiling",
        "alpha",
        "token",
        "fir delays",
    ):
        assert word in plain


@by_name([make_architecture.PAGE, make_architecture.CONTRIBUTING])
def test_tables_are_those_of_the_folders(path):
    page = path.read_text(encoding="utf-8")
    assert "<!-- table_of" in page
    assert make_architecture.fill(page) == page, "run `make docs`"


def test_picture_is_that_of_the_imports():
    assert make_architecture.digest().encode() in make_architecture.PICTURE.read_bytes(), "run `make docs`"


@pytest.mark.parametrize("module", list(MODULES), ids=lambda module: module or "encoding_nb")
def test_every_file_says_what_it_holds_in_one_line(module):
    line = make_architecture.first_line(MODULES[module])
    assert 20 <= len(line) <= 120 and line.endswith((".", "`"))


def test_shortest_drops_only_what_a_chain_implies():
    edges = {"a": set(), "b": {"a"}, "c": {"a", "b"}, "d": {"a"}}
    assert make_architecture.shortest(edges) == {"a": set(), "b": {"a"}, "c": {"b"}, "d": {"a"}}
    assert make_architecture.levels(edges) == {"a": 0, "b": 1, "c": 2, "d": 1}


@by_name([*MODULES.values(), *(page for page in PAGES if page.name not in ("api.md", "CHANGELOG.md"))])
def test_names_of_folders_lead_somewhere(path):
    """`ridge.huth_alphas` in a page or docstring is there, and so is `pipeline/plan.py`."""
    text = path.read_text(encoding="utf-8")
    for folder, name in re.findall(r"`(?:encoding_nb\.)?(\w+)\.(?!css|js)(\w+)", text):
        if folder in FOLDERS:
            there = f"{folder}.{name}" in MODULES or hasattr(import_module(f"encoding_nb.{folder}"), name)
            assert there, f"{folder}.{name} is not there"
    for file in re.findall(r"`((?:\w+/)+\w+\.\w+)`", text):
        known = (PACKAGE / file, ROOT / file, path.parent / file)
        if (PACKAGE / file.split("/")[0]).is_dir() or (ROOT / file.split("/")[0]).is_dir():
            assert any(place.exists() for place in known), f"{file} is not there"


def lessons_and_pages():
    """(where, its Python code): notebooks' cells, and the pages' fenced blocks."""
    for path in [*sorted((ROOT / "notebooks").glob("*.ipynb")), ROOT / "binder" / "colab.ipynb"]:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        yield path, "\n".join("".join(cell["source"]) for cell in cells)
    for path in PAGES:
        yield path, "\n".join(re.findall(r"(?s)```python\n(.*?)```", path.read_text(encoding="utf-8")))


@pytest.mark.parametrize(
    ("path", "code"), [pytest.param(*each, id=each[0].name) for each in lessons_and_pages()]
)
def test_lessons_import_from_the_package_or_a_folder(path, code):
    """Never from a file inside a folder; and every name is one that the folder lists."""
    for home, names in re.findall(r"from (encoding_nb[\w.]*) import (\([^)]*\)|[\w, ]+)", code):
        assert home.removeprefix("encoding_nb").lstrip(".") in ("", *FOLDERS), f"{path.name}: {home}"
        for name in re.findall(r"\w+", names):
            listed = (*import_module(home).__all__, *(FOLDERS if home == "encoding_nb" else ()))
            assert name in listed, f"{path.name}: {home} does not list {name}"


def test_api_page_is_that_of_the_docstrings():
    assert make_api.PAGE.read_text(encoding="utf-8") == make_api.page(), "run `make docs`"


@pytest.mark.parametrize("name", encoding_nb.__all__)
def test_docstring_speaks_of_every_argument(name):
    value = getattr(encoding_nb, name)
    described = inspect.getdoc(value) or ""
    assert not inspect.ismodule(value), f"encoding_nb.{name} is a module, not what its name says"
    assert described
    described += "".join(
        inspect.getdoc(other) for _, other in make_api.referred(value, described, public=True)
    )
    if dataclasses.is_dataclass(value) and name != "Trimming":  # its fields are named by a rule
        asked = {field.name for field in dataclasses.fields(value)}
    elif inspect.isfunction(value):
        kinds = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
        asked = {p.name for p in inspect.signature(value).parameters.values() if p.kind not in kinds}
    else:
        asked = set()
    silent = sorted(word for word in asked - PLAIN if not re.search(rf"\b{word}\b", described))
    assert not silent, f"{name}: nothing is said of {', '.join(silent)}"
