"""Pages say what the code says: links, pictures with words for them, docstrings, and what is made from the code."""

import dataclasses
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import encoding_nb

from .test_imports import SOURCES, STAGES, module_of

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


def test_architecture_is_that_of_the_code():
    page = make_architecture.PAGE.read_text(encoding="utf-8")
    assert make_architecture.fill(page) == page, "run `make docs`"
    assert make_architecture.digest().encode() in make_architecture.PICTURE.read_bytes(), "run `make docs`"


def test_every_module_stands_in_the_table_of_stages():
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    table = re.search(r"(?s)\| stage \| modules \|\n(.*?)\n\n", page).group(1)
    rows = [set(re.findall(r"`(\w+)/?`", row)) for row in table.splitlines()]
    listed = set().union(*rows)
    modules = {module_of(path) for path in SOURCES} - {"__init__", "__main__"}
    assert not modules - listed, f"name in CONTRIBUTING.md: {', '.join(sorted(modules - listed))}"
    assert not listed - modules, f"no longer there: {', '.join(sorted(listed - modules))}"
    for stage, parts in STAGES.items():
        assert any(parts <= row for row in rows), f"the parts of {stage} stand in different rows"


def test_shortest_drops_only_what_a_chain_implies():
    edges = {"a": set(), "b": {"a"}, "c": {"a", "b"}, "d": {"a"}}
    assert make_architecture.shortest(edges) == {"a": set(), "b": {"a"}, "c": {"b"}, "d": {"a"}}
    assert make_architecture.levels(edges) == {"a": 0, "b": 1, "c": 2, "d": 1}


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
