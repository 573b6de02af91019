"""Draw architecture.png and fill the table in architecture.md from the code's own imports.

    python docs/make_architecture.py

A box is a stage (tests/test_imports.py says which modules are parts of which); an arrow goes from a stage to one
that imports it, left out where a chain of other arrows says it already.
"""

from __future__ import annotations

import sys
from functools import cache
from graphlib import CycleError, TopologicalSorter
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from tests.test_imports import SOURCES, STAGE_OF, imported_by, module_of  # noqa: E402

PAGE, PICTURE = ROOT / "docs" / "architecture.md", ROOT / "docs" / "architecture.png"
START, END = "<!-- table from the code -->", "<!-- end of the table -->"
LEFT_OUT = {"__init__", "__main__"}  # the public names, and the command line: they stand above all others


def modules_of() -> dict[str, list[str]]:
    """{stage: its modules, the one that names it first}."""
    found: dict[str, list[str]] = {}
    for path in SOURCES:
        stage = STAGE_OF.get(module_of(path), module_of(path))
        inside = "/".join(path.relative_to(ROOT / "encoding_nb").parts).removesuffix(".py")
        if stage not in LEFT_OUT and not inside.endswith("__init__"):
            found.setdefault(stage, []).append(inside)
    return {stage: sorted(names, key=lambda name: (name != stage, name)) for stage, names in found.items()}


def imports_of() -> dict[str, set[str]]:
    """{stage: the stages that it imports, anywhere in its modules}."""
    stages = modules_of()
    found: dict[str, set[str]] = {stage: set() for stage in stages}
    for path in SOURCES:
        stage = STAGE_OF.get(module_of(path), module_of(path))
        if stage in stages:
            used = {STAGE_OF.get(name, name) for name in imported_by(path)[0]}
            found[stage] |= (used & set(stages)) - {stage}
    try:
        TopologicalSorter(found).prepare()
    except CycleError as error:
        raise ValueError(f"Stages import each other in a circle: {', '.join(error.args[1])}.") from None
    return found


def shortest(edges: dict[str, set[str]]) -> dict[str, set[str]]:
    """The edges without those that a chain of others implies (the transitive reduction)."""

    @cache
    def reached(stage: str) -> frozenset[str]:
        return frozenset().union(*(({near} | reached(near)) for near in edges[stage]), frozenset())

    return {
        stage: {near for near in direct if not any(near in reached(other) for other in direct - {near})}
        for stage, direct in edges.items()
    }


def levels(edges: dict[str, set[str]]) -> dict[str, int]:
    """{stage: length of the longest chain of imports below it}."""

    @cache
    def level(stage: str) -> int:
        return 1 + max((level(near) for near in edges[stage]), default=-1)

    return {stage: level(stage) for stage in edges}


def table() -> str:
    """A row per stage: its modules, and what it imports."""
    stages, edges = modules_of(), imports_of()
    height = levels(edges)
    rows = []
    for stage in sorted(stages, key=lambda stage: (height[stage], stage)):
        modules, used = (f"`{name}`" for name in stages[stage]), sorted(edges[stage])
        rows.append(f"| {stage} | {', '.join(modules)} | {', '.join(used) or 'nothing'} |")
    return "\n".join(["| stage | modules | imports |", "| --- | --- | --- |", *rows])


def digest() -> str:
    """What the picture shows, in short: written into the picture, so that a test knows whether it is of this code."""
    edges = imports_of()
    return sha256(repr(sorted((stage, sorted(near)) for stage, near in edges.items())).encode()).hexdigest()


def draw() -> None:
    """Write architecture.png."""
    from matplotlib.figure import Figure

    edges = shortest(imports_of())
    places = arranged(edges)
    across, down = (max(place[i] for place in places.values()) for i in (0, 1))
    figure = Figure(figsize=(1.7 * (across + 1), 0.62 * (down + 1)), layout="constrained")
    ax = figure.add_subplot()
    ax.set(xlim=(-0.55, across + 0.55), ylim=(down + 0.5, -0.5))
    ax.axis("off")
    parts, look = modules_of(), {"boxstyle": "round,pad=0.4", "facecolor": "#E8F1F8", "edgecolor": "#0072B2"}
    boxes = {}
    for stage in edges:
        place, count = places[stage], len(parts[stage])
        text = f"{stage}\n{count} modules" if count > 1 else stage
        written = ax.text(*place, text, ha="center", va="center", fontsize=9, bbox=look, linespacing=1.3)
        boxes[stage] = written.get_bbox_patch()
    for chain in chains(edges):
        *way, last = [places[stop] for stop in chain]
        if len(way) > 1:
            ax.plot(*zip(*way, strict=True), color="0.5", linewidth=1.1, zorder=0)
        arrow = {
            "arrowstyle": "-|>",
            "color": "0.5",
            "linewidth": 1.1,
            "shrinkA": 0,
            "patchB": boxes[chain[-1]],
        }
        ax.annotate("", xy=last, xytext=way[-1], arrowprops=arrow, zorder=0)
    figure.savefig(PICTURE, dpi=110, metadata={"Description": digest()})


def chains(edges: dict[str, set[str]]) -> list[tuple]:
    """Each arrow as the stops on its way: a stage, a bend in every column that it passes, a stage."""
    height = levels(edges)
    return [
        (near, *((near, stage, n) for n in range(height[near] + 1, height[stage])), stage)
        for stage in sorted(edges)
        for near in sorted(edges[stage])
    ]


def arranged(edges: dict[str, set[str]]) -> dict[Any, tuple[float, float]]:
    """{stop: (column, row)}: columns by level, rows so that a stop stands near those it is tied to.

    The stops that are bends have rows of their own, so that arrows pass between boxes.
    """
    column_of: dict[Any, int] = dict(levels(edges))
    tied: dict[Any, set] = {stage: set() for stage in edges}
    for chain in chains(edges):
        for left, right in pairwise(chain):
            tied.setdefault(left, set()).add(right)
            tied.setdefault(right, set()).add(left)
        column_of |= {stop: stop[2] for stop in chain[1:-1]}
    columns = [
        sorted((s for s in column_of if column_of[s] == n), key=str)
        for n in range(max(column_of.values()) + 1)
    ]
    tallest = max(map(len, columns))
    rows = {s: k + (tallest - len(column)) / 2 for column in columns for k, s in enumerate(column)}
    for column in [*columns, *columns[::-1]] * 12:
        column.sort(key=lambda s: (sum(rows[other] for other in tied[s]) / max(len(tied[s]), 1), str(s)))
        rows |= {s: k + (tallest - len(column)) / 2 for k, s in enumerate(column)}
    return {s: (float(n), rows[s]) for s, n in column_of.items()}


def fill(page: str) -> str:
    """The page with the table as the code is now."""
    before, rest = page.split(START)
    return f"{before}{START}\n{table()}\n{END}{rest.split(END)[1]}"


def main() -> None:
    """Write both files."""
    PAGE.write_text(fill(PAGE.read_text()))
    draw()


if __name__ == "__main__":
    main()
