"""Notebooks are committed without outputs, and read as lessons. `make notebooks` runs them."""

import ast
import json
import re
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).resolve().parent.parent / "notebooks").glob("*.ipynb"))
LESSONS = [path for path in NOTEBOOKS if path.name[:2] != "09"]  # a gallery


def cells_of(path, kind=None):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [(cell, "".join(cell["source"])) for cell in cells if kind in (None, cell["cell_type"])]


def by_name(paths):
    return pytest.mark.parametrize("path", paths, ids=lambda p: p.name)


def test_there_are_notebooks():
    assert [path.name[:2] for path in NOTEBOOKS] == [f"{n:02}" for n in range(1, len(NOTEBOOKS) + 1)]
    assert NOTEBOOKS[0].name == "01_control_panel.ipynb"


@by_name(NOTEBOOKS)
def test_notebook_is_stripped(path):
    for number, (cell, _) in enumerate(cells_of(path)):
        assert not cell.get("outputs") and not cell.get("execution_count"), f"cell {number} holds outputs"
    ids = [cell["id"] for cell, _ in cells_of(path)]
    assert len(set(ids)) == len(ids)


@by_name(NOTEBOOKS)
def test_code_cells_parse_and_names_exist(path):
    """Also what only an exercise or a real data set would reach: every imported name is there."""
    from importlib import import_module

    for _, source in cells_of(path, "code"):
        for node in ast.walk(ast.parse(re.sub(r"(?m)^[!%].*$", "", source))):
            if isinstance(node, ast.ImportFrom) and node.module.startswith("encoding_nb"):
                module = import_module(node.module)
                for alias in node.names:
                    if not hasattr(module, alias.name):
                        import_module(f"{node.module}.{alias.name}")


@pytest.fixture(scope="module")
def runner():
    """The script behind `make notebooks`."""
    path = NOTEBOOKS[0].parent.parent / "benchmarks" / "notebooks.py"
    spec = spec_from_file_location("notebooks_runner", path)
    module = module_from_spec(spec)
    sys.modules["notebooks_runner"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@by_name(NOTEBOOKS)
def test_notebook_states_a_time_that_the_runner_reads(path, runner):
    assert 10 <= runner.stated_seconds(cells_of(path)[0][1]) <= runner.LONGEST


def test_stated_times_are_read(runner):
    assert runner.stated_seconds("# Why?\n\n*Takes about a minute and a half, 20 seconds later.*") == 90
    assert runner.stated_seconds("two minutes ago. It takes some 75 seconds on two cores") == 75
    assert runner.stated_seconds("Takes less than a minute.") == 60
    with pytest.raises(ValueError, match="expected 'takes about' and one of a minute and a half"):
        runner.stated_seconds("# Why?\n\nA minute of your time.")


def test_only_a_gross_excess_is_marked(runner):
    assert [runner.too_long(*pair) for pair in ((100, 30), (130, 90), (150, 60), (250, 120))] == [0, 0, 1, 1]


def write_notebook(path, code):
    cells = [
        {"cell_type": "markdown", "id": "a", "metadata": {}, "source": ["# Why?\n", "\n", "Takes a minute."]},
        {
            "cell_type": "code",
            "id": "b",
            "metadata": {},
            "execution_count": None,
            "outputs": [],
            "source": [code],
        },
    ]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nb = {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
    path.write_text(json.dumps(nb))
    return path


def test_runner_gives_each_notebook_an_empty_cache_and_reports_a_failure(runner, tmp_path):
    look = "import os, pathlib\nassert list(pathlib.Path(os.environ['ENCODING_NB_CACHE']).iterdir()) == []"
    fine = runner.run_notebook(write_notebook(tmp_path / "01_fine.ipynb", look), tmp_path / "out")
    assert (fine.problem, fine.stated) == ("", 60) and fine.cpu_seconds > 0
    assert (tmp_path / "out" / "01_fine.html").is_file()
    bad = runner.run_notebook(write_notebook(tmp_path / "02_bad.ipynb", "1 / 0"), tmp_path / "out")
    assert "ZeroDivisionError" in bad.problem


def test_gallery_draws_every_plot():
    from encoding_nb import plots, sweep

    source = "\n".join(text for _, text in cells_of(NOTEBOOKS[-1], "code"))
    known = {name for module in (plots, sweep) for name in vars(module) if name.startswith("plot_")}
    assert len(known) > 20
    assert {name for name in known if not re.search(rf"\b{name}\(", source)} == set()


def test_the_first_notebook_leads_to_the_glossary():
    assert "docs/glossary.md" in cells_of(NOTEBOOKS[0])[0][1]


@by_name(LESSONS)
def test_lesson_begins_with_its_question_and_its_time(path):
    first = cells_of(path)[0]
    assert first[0]["cell_type"] == "markdown"
    assert re.match(r"# .+\?\n", first[1]), "the first line is the lesson's question"
    assert re.search(r"[Tt]akes .*(seconds|minute)", first[1])
    assert "simulated" in first[1]


@by_name(LESSONS)
def test_lesson_is_small_steps_of_public_functions(path):
    for cell, source in cells_of(path, "code"):
        if "check" in cell["metadata"].get("tags", ()):
            continue  # folded, and not part of the lesson
        tree = ast.parse(source)
        assert not any(isinstance(node, (ast.FunctionDef, ast.ClassDef)) for node in ast.walk(tree)), source
        private = [n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute) and n.attr.startswith("_")]
        assert not private and "pyplot" not in source
        steps = re.sub(r"(?s)^from .*?\n\n", "", source)  # imports are not steps
        assert len(steps.splitlines()) <= 20, source
    assert len(cells_of(path, "markdown")) >= len(cells_of(path, "code")) * 0.6, "more words than code"


@by_name(LESSONS)
def test_lesson_ends_with_the_answer_and_folded_solutions(path):
    text = "\n".join(source for _, source in cells_of(path, "markdown"))
    assert "## The answer" in text
    assert any("truth" in source for _, source in cells_of(path, "code")), (
        "the demo's truth is the answer key"
    )
    last = cells_of(path)[-1][1]
    exercises = re.findall(r"(?m)^\d\. ", last)
    assert "## Change one thing" in last and "*References.*" in last and len(exercises) >= 2
    assert last.count("<details><summary>Solution</summary>") == last.count("</details>") == len(exercises)


@by_name([path for path in LESSONS if path.name[:2] != "08"])
def test_numbers_that_a_lesson_quotes_are_checked_when_it_runs(path):
    """The last cell of code compares numbers with what the notebook computes; each of them must be in the text."""
    text = "\n".join(source for _, source in cells_of(path, "markdown"))
    cell, source = cells_of(path, "code")[-1]
    assert cell["metadata"]["tags"] == ["check"] and cell["metadata"]["jupyter"]["source_hidden"]
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    quoted = [call.args[0] for call in calls if getattr(call.func, "id", "") == "says"]
    assert quoted
    numbers = [argument.value for argument in quoted if isinstance(argument, ast.Constant)]
    forms = ("{0:g}", "{0:.2f}", "{0:,}", "{1:.0f} %")
    missing = [n for n in numbers if not any(form.format(n, 100 * n) in text for form in forms)]
    assert not [n for n in missing if n not in (0.9, 0.0)], "0.9: nine tenths; 0.0: zero"
