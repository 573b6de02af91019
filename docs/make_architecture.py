"""Draw architecture.png and fill the tables of architecture.md and CONTRIBUTING.md from the package's folders.

    python docs/make_architecture.py

A row or box is a part of the package: a folder, or a file at its top. An arrow goes from a part to one that imports
it, and is left out where a chain of other arrows implies it.
"""

from __future__ import annotations

import ast
import sys
from functools import cache
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from tests.test_imports import FOLDERS, MODULES, PACKAGE, arrows, edges_of_parts  # noqa: E402

PAGE, CONTRIBUTING = ROOT / "docs" / "architecture.md", ROOT / "CONTRIBUTING.md"
PICTURE = ROOT / "docs" / "architecture.png"


def files_of(folder: str) -> list[str]:
    """The files of a folder that hold code, without its `__init__.py`."""
    code = (path for path in (PACKAGE / folder).iterdir() if path.suffix in (".py", ".js", ".css"))
    return sorted(path.name for path in code if path.name != "__init__.py")


def first_line(path: Path) -> str:
    """The first line of a file's docstring, or of the comment that a JavaScript or CSS file starts with."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        text = ast.get_docstring(ast.parse(text)) or ""
    return text.partition("\n")[0].strip("/* ")


def imports_of_parts() -> dict[str, set[str]]:
    """{part: the parts that it imports}, in the order of the arrows, without the shared `_*` files."""
    edges, parts = edges_of_parts(), list(arrows())
    return {part: edges[part] & set(parts) for part in parts}


def shortest(edges: dict[str, set[str]]) -> dict[str, set[str]]:
    """The edges without those that a chain of others implies (the transitive reduction)."""

    @cache
    def reached(part: str) -> frozenset[str]:
        return frozenset().union(*(({near} | reached(near)) for near in edges[part]), frozenset())

    return {
        part: {near for near in direct if not any(near in reached(other) for other in direct - {near})}
        for part, direct in edges.items()
    }


def levels(edges: dict[str, set[str]]) -> dict[str, int]:
    """{part: length of the longest chain of imports below it}."""

    @cache
    def level(part: str) -> int:
        return 1 + max((level(near) for near in edges[part]), default=-1)

    return {part: level(part) for part in edges}


def table_of_parts() -> str:
    """A row per part: what it is for, and what it imports."""
    rows = ["| part | what it is for | imports |", "| --- | --- | --- |"]
    for part, used in imports_of_parts().items():
        name = f"`{part}/`" if part in FOLDERS else f"`{part}.py`"
        rows.append(f"| {name} | {first_line(MODULES[part])} | {', '.join(sorted(used)) or 'nothing'} |")
    return "\n".join(rows)


def table_of_files() -> str:
    """A row per file, folder by folder: the first line of its docstring."""
    rows = ["| file | what it holds |", "| --- | --- |"]
    for part in ["", *(part for part in arrows() if part in FOLDERS)]:
        for name in files_of(part):
            place = f"{part}/{name}" if part else name
            rows.append(f"| [`{place}`](../encoding_nb/{place}) | {first_line(PACKAGE / place)} |")
    return "\n".join(rows)


def table_of_folders() -> str:
    """A row per folder: what it is for, and its files' names."""
    rows = ["| folder | what it is for | files |", "| --- | --- | --- |"]
    for part in [part for part in arrows() if part in FOLDERS]:
        names = ", ".join(f"`{name.removesuffix('.py')}`" for name in files_of(part))
        rows.append(f"| [`{part}/`](encoding_nb/{part}) | {first_line(MODULES[part])} | {names} |")
    top = ", ".join(f"`{name.removesuffix('.py')}`" for name in files_of(""))
    shared = "Data, settings, the command line, and (`_*`) what all folders share."
    return "\n".join([*rows, f"| [at the top](encoding_nb) | {shared} | {top} |"])


def digest() -> str:
    """What the picture shows, in short; written into the picture, so that a test knows whether it is up to date."""
    return sha256(
        repr([(part, sorted(near)) for part, near in imports_of_parts().items()]).encode()
    ).hexdigest()


def draw() -> None:
    """Write architecture.png."""
    from matplotlib.figure import Figure

    edges = shortest(imports_of_parts())
    places = arranged(edges)
    across, down = (max(place[i] for place in places.values()) for i in (0, 1))
    figure = Figure(figsize=(1.45 * (across + 1), 0.62 * (down + 1)), layout="constrained")
    ax = figure.add_subplot()
    ax.set(xlim=(-0.55, across + 0.55), ylim=(down + 0.5, -0.5))
    ax.axis("off")
    look, boxes = {"boxstyle": "round,pad=0.4", "facecolor": "#E8F1F8", "edgecolor": "#0072B2"}, {}
    for part in edges:
        files = len(files_of(part)) if part in FOLDERS else 0
        text = f"{part}/\n{files} files" if files > 1 else f"{part}/\n1 file" if files else f"{part}.py"
        written = ax.text(
            *places[part], text, ha="center", va="center", fontsize=9, bbox=look, linespacing=1.3
        )
        boxes[part] = written.get_bbox_patch()
    line = {"color": "0.5", "linewidth": 1.1}
    for chain in chains(edges):
        *way, last = [places[stop] for stop in chain]
        ax.plot(*zip(*way, strict=True), zorder=0, **line)
        arrow = {"arrowstyle": "-|>", "shrinkA": 0, "patchB": boxes[chain[-1]], **line}
        ax.annotate("", xy=last, xytext=way[-1], arrowprops=arrow, zorder=0)
    figure.savefig(PICTURE, dpi=110, metadata={"Description": digest()})


def chains(edges: dict[str, set[str]]) -> list[tuple]:
    """Each arrow as the stops on its way: a part, a bend in every column that it passes, a part."""
    height = levels(edges)
    return [
        (near, *((near, part, n) for n in range(height[near] + 1, height[part])), part)
        for part in edges
        for near in sorted(edges[part])
    ]


def arranged(edges: dict[str, set[str]]) -> dict[Any, tuple[float, float]]:
    """{stop: (column, row)}: columns by level, rows so that a stop is near those it is tied to.

    The bends have rows of their own, so that arrows pass between boxes.
    """
    column_of: dict[Any, int] = dict(levels(edges))
    tied: dict[Any, set] = {part: set() for part in edges}
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
    """A page with its tables as the folders are now."""
    for table in (table_of_parts, table_of_files, table_of_folders):
        start, end = f"<!-- {table.__name__} -->", f"<!-- end of {table.__name__} -->"
        if start in page:
            before, rest = page.split(start)
            page = f"{before}{start}\n{table()}\n{end}{rest.split(end)[1]}"
    return page


def main() -> None:
    """Write the tables and the picture."""
    for path in (PAGE, CONTRIBUTING):
        path.write_text(fill(path.read_text(encoding="utf-8")), encoding="utf-8")
    draw()


if __name__ == "__main__":
    main()
