"""The outlines of areas and sulci, read from a subject's drawing (pycortex's `overlays.svg`) without Inkscape.

Outlines are polylines in *map* coordinates: (0, 0) is the lower left corner of the flatmap and (1, 1) the upper right,
so that they fit an image of any height. Curves are cut into short straight pieces.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import _progress

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = np.ndarray
Extent = tuple[float, ...]  # left, right, bottom, top

MOST_TRANSFORM, MOST_PATHS = 10_000, 3_000_000  # characters of a transform, of all paths; S1 has 0.1 million
MOST_OUTLINES = 2000  # S1 has 60; the time to place their names grows with the square
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_PIECES = 12  # straight pieces per curve
_SVG = "{http://www.w3.org/2000/svg}"
_LABEL = "{http://www.inkscape.org/namespaces/inkscape}label"
_LABEL_ROOM = np.array([0.05, 0.037])  # width and height of a name on a map of 6 inches
_OUTSIDE = 0.25  # a place outside the area is as bad as covering this share of another name
_NAME_SIZE = 7  # points


@dataclass(frozen=True, eq=False)
class Outline:
    """One drawn line.

    Attributes
    ----------
    layer : str
        "rois", "sulci", "edge" (the border of the cortex), or another layer of the drawing.
    name : str
        The name of the area or sulcus; an area has one outline per hemisphere.
    points : array, (n_points, 2)
        Map coordinates, 0 to 1 from left to right and from bottom to top.
    closed : bool
    label_at : array, (2,), optional
        Where its name is written; None if the name is at another piece of the same drawing.
    """

    layer: str
    name: str
    points: Array
    closed: bool
    label_at: Array | None = None

    def contains(self, points: Array) -> Array:
        """(n_points,) bool: which of the (n_points, 2) map coordinates lie inside."""
        from matplotlib.path import Path as Polygon

        inside = np.zeros(len(points), bool)
        low, high = self.points.min(0), self.points.max(0)
        near = np.flatnonzero(((points >= low) & (points <= high)).all(axis=1))
        inside[near] = Polygon(self.points).contains_points(points[near])
        return inside


class _Pen:
    """Collects what fontTools' SVG parser draws, as lists of points; the method names are fontTools'."""

    def __init__(self) -> None:
        self.lines: list[list[Array]] = []
        self.closed: list[bool] = []

    def moveTo(self, point: Any) -> None:
        self.lines.append([np.array(point)])
        self.closed.append(False)

    def curveTo(self, *controls: Any) -> None:
        if self.closed[-1]:  # drawing goes on after a close: a new line from its start
            self.moveTo(self.lines[-1][0])
        points = self.lines[-1]
        points.extend(_bezier([points[-1], *np.array(controls)]))

    lineTo = qCurveTo = curveTo

    def closePath(self) -> None:
        self.closed[-1] = True
        points = self.lines[-1]
        if len(points) > 1 and np.array_equal(points[0], points[-1]):
            points.pop()  # fontTools draws the line back to the start, too

    def endPath(self) -> None:
        pass


def _bezier(controls: list[Array]) -> list[Array]:
    """Points on a Bezier curve of any order (de Casteljau's construction), without its start; a line has one."""
    n_pieces = _PIECES if len(controls) > 2 else 1
    t = np.arange(1, n_pieces + 1)[:, None] / n_pieces
    level = [np.broadcast_to(point, (n_pieces, 2)) for point in controls]
    while len(level) > 1:
        level = [(1 - t) * a + t * b for a, b in pairwise(level)]
    return list(level[0])


def polylines(data: str) -> list[tuple[Array, bool]]:
    """The polylines, (n_points, 2) each, and whether each is closed, of the `d` attribute of an SVG path.

    Raises
    ------
    ValueError, IndexError
        A command or a number where the SVG grammar allows none.
    """
    from fontTools.svgLib.path import parse_path

    if len(data) > MOST_PATHS:
        raise ValueError(f"a path of {len(data):,} characters, where at most {MOST_PATHS:,} are read")
    if unknown := re.findall(r"[^MmZzLlHhVvCcSsQqTtAaEe\d\s.,+-]", data):  # fontTools would skip these
        raise ValueError(f"unknown character {unknown[0]!r} in the path")
    pen = _Pen()
    parse_path(re.sub(r"(?<=\d)\.(?!\d)", "", data), pen)  # fontTools would read 6.e-5 as two numbers
    if not all(np.isfinite(points).all() for points in pen.lines):
        raise ValueError("a number that is too large")
    lines = zip(map(np.array, pen.lines), pen.closed, strict=True)
    return [(points, closed) for points, closed in lines if len(points) > 1]


def transform_matrix(text: str) -> Array:
    """The 3 by 3 matrix of an SVG `transform` attribute."""
    from matplotlib.transforms import Affine2D

    if len(text) > MOST_TRANSFORM:
        raise ValueError(
            f"a transform of {len(text):,} characters, where at most {MOST_TRANSFORM:,} are read"
        )
    total = np.eye(3)
    for kind, inner in re.findall(r"(?<!\w)(\w{1,20})\s{0,9}\(([^()]*)\)", text):
        n = [float(value) for value in re.findall(_NUMBER, inner)]
        if kind == "matrix":
            step: Any = Affine2D.from_values(*n)
        elif kind == "translate":
            step = Affine2D().translate(n[0], n[1] if len(n) > 1 else 0)
        elif kind == "scale":
            step = Affine2D().scale(*n)
        elif kind == "rotate":
            x, y = n[1:3] or (0, 0)
            step = Affine2D().rotate_deg_around(x, y, n[0])
        else:
            raise ValueError(f"transform {kind!r} is not supported")
        total = total @ step.get_matrix()
    return total


def read_drawing(svg_file: Path) -> tuple[tuple[Outline, ...], str]:
    """All lines of an `overlays.svg`, and "".

    If the file is missing or cannot be parsed: no lines, the reason in a few words, and a warning.
    """
    from lxml import etree

    try:
        root = etree.parse(str(svg_file), etree.XMLParser(huge_tree=True, resolve_entities=False)).getroot()
        outlines = tuple(_outlines(root, _drawing_size(root), svg_file))
    except (etree.XMLSyntaxError, OSError, ValueError) as error:
        fault = "cannot be read" if svg_file.is_file() else "is missing"
        _progress.warn(f"{svg_file} {fault}: the map is drawn without outlines ({error}).", stacklevel=3)
        return (), f"{svg_file.name} {fault}"
    return place_labels(outlines), ""


def _drawing_size(root: Any) -> tuple[float, float]:
    """Width and height of the drawing in its own units."""
    if root.get("viewBox"):
        numbers = [float(n) for n in re.findall(_NUMBER, root.get("viewBox"))]
        if len(numbers) == 4 and min(numbers[2:]) > 0:
            return numbers[2], numbers[3]
    width, height = (re.match(_NUMBER, root.get(name, "")) for name in ("width", "height"))
    if root.tag != f"{_SVG}svg" or not width or not height:
        raise ValueError("expected an SVG drawing with a width and a height")
    return float(width.group()), float(height.group())


def _outlines(root: Any, size: tuple[float, float], source: Path) -> Iterator[Outline]:
    """The lines of a drawing; a ValueError if it has so many that they would take minutes."""
    n_lines = n_characters = 0
    matrices: dict[Any, Array] = {None: np.eye(3)}

    def polylines_of(path: Any) -> list[tuple[Array, bool]]:
        nonlocal n_lines, n_characters
        n = len(path.get("d", ""))
        n_characters += n if n <= MOST_PATHS else 0  # a longer one is left out alone
        if n_characters > MOST_PATHS:
            raise ValueError(f"paths of more than {MOST_PATHS:,} characters")
        lines = _polylines_of(path, size, source, matrices)
        n_lines += max(len(lines), 1)
        if n_lines > MOST_OUTLINES:
            raise ValueError(f"more than {MOST_OUTLINES:,} outlines")
        return lines

    for path in root.iterfind(f"{_SVG}defs//{_SVG}clipPath[@id='edgeclip']//{_SVG}path"):
        for points, closed in polylines_of(path):
            yield Outline("edge", "edge", points, closed)
    for group in root.iterfind(f"{_SVG}g/{_SVG}g[@{_LABEL}='shapes']/{_SVG}g"):
        layer = group.getparent().getparent().get(_LABEL, "")
        # "data" holds background pictures; hidden areas were hidden by the person who drew them
        if layer == "data" or "display:none" in group.get("style", "").replace(" ", ""):
            continue
        for path in group.iterfind(f".//{_SVG}path"):
            pieces = polylines_of(path)
            longest = max((len(points) for points, _ in pieces), default=0)
            for points, closed in pieces:
                where = points.mean(0) if len(points) == longest else None
                yield Outline(layer, group.get(_LABEL, ""), points, closed, where)


def _matrix_of(element: Any, known: dict[Any, Array]) -> Array:
    """The transforms of an element and its parents; `known` holds those of elements before, and of None."""
    chain = []
    while element not in known:
        chain.append(element)
        element = element.getparent()
    for child in reversed(chain):
        with np.errstate(over="ignore", invalid="ignore"):
            known[child] = known[child.getparent()] @ transform_matrix(child.get("transform", ""))
        if not np.isfinite(known[child]).all():
            raise ValueError("a number that is too large in a transform")
    return known[chain[0]] if chain else known[element]


def _polylines_of(
    path: Any, size: tuple[float, float], source: Path, matrices: dict[Any, Array]
) -> list[tuple[Array, bool]]:
    """The polylines of one path element in map coordinates, transforms of its parents applied."""
    try:
        matrix = _matrix_of(path, matrices)
        lines = polylines(path.get("d", ""))
    except (ValueError, IndexError, TypeError) as error:
        name = path.getparent().get(_LABEL) or path.get("id")
        _progress.warn(f"{source}: the outline of {name!r} is left out ({error}).", stacklevel=2)
        return []
    found = []
    for points, closed in lines:
        moved = (np.column_stack([points, np.ones(len(points))]) @ matrix.T)[:, :2]
        found.append((moved / size * [1, -1] + [0, 1], closed))
    return found


def place_labels(outlines: tuple[Outline, ...]) -> tuple[Outline, ...]:
    """The outlines with places for their names: on the cortex, inside the area, clear of each other.

    If that is impossible, names overlap as little as possible, or are next to their area. The smallest areas choose
    first and sulci last, since a line has room along its length. In a drawing of several pieces the longest bears the
    name.
    """
    edges = [line for line in outlines if line.layer == "edge"]
    placed: list[Array] = []
    found: dict[int, Any] = dict.fromkeys(range(len(outlines)))
    for i in sorted(found, key=lambda i: (outlines[i].layer != "rois", _size(outlines[i].points))):
        line = outlines[i]
        if line.label_at is not None:
            places, faults = _places(line, edges)
            covered = sum(_overlap(places, other) for other in placed)
            found[i] = places[np.argmin(covered + faults)]  # the first of the best
            placed.append(found[i])
    return tuple(replace(line, label_at=found[i]) for i, line in enumerate(outlines))


def _size(points: Array) -> float:
    return float(np.prod(np.ptp(points, axis=0)))


def _overlap(places: Array, other: Array) -> Array:
    """(n,): the share of a name that another one at `other` covers."""
    return np.clip(1 - np.abs(places - other) / _LABEL_ROOM, 0, 1).prod(axis=1)


def _places(line: Outline, edges: list[Outline]) -> tuple[Array, Array]:
    """(n, 2): possible places for a name, the best first; and (n,) the penalty of each."""
    if line.layer != "rois":
        order = np.argsort(np.abs(np.linspace(-1, 1, len(line.points))))
        return line.points[order], np.zeros(len(order))
    from scipy.spatial import cKDTree

    low, high = line.points.min(0), line.points.max(0)
    steps = np.linspace(low, high, 26)[1:-1]
    grid = np.stack(np.meshgrid(steps[:, 0], steps[:, 1]), axis=-1).reshape(-1, 2)
    grid = grid[line.contains(grid)]
    if edges:
        grid = grid[np.any([edge.contains(grid) for edge in edges], axis=0)]
    around = np.vstack([line.points, *(edge.points[::8] for edge in edges)])
    away = cKDTree(around).query(grid)[0] if len(grid) else np.empty(0)
    eight = np.array([(x, y) for y in (1, 0, -1) for x in (0, 1, -1) if x or y])
    outside = (low + high) / 2 + eight * ((high - low) / 2 + _LABEL_ROOM / 2)
    places = np.vstack([grid[np.argsort(-away)], outside])
    return places, np.where(np.arange(len(places)) < len(grid), 0.0, _OUTSIDE)


def draw_outlines(
    ax: Axes,
    outlines: Sequence[Outline],
    *,
    extent: Extent,
    areas: Sequence[str] = (),
    sulci: bool = False,
    labels: bool = True,
    dark: bool = False,
) -> None:
    """Draw outlines and their names on axes whose data coordinates are `extent`; `dark` suits a light map."""
    from matplotlib.patheffects import Normal, Stroke

    ink, rim = ("0.1", "white") if dark else ("white", "0.1")
    edge = _edge(ax, [line for line in outlines if line.layer == "edge"], extent)
    for line in outlines:
        area = line.layer == "rois" and line.name in areas
        if not area and not (sulci and line.layer == "sulci"):
            continue
        width, rim_width, alpha = (0.9, 2.1, 1.0) if area else (1.8, 3.0, 0.6)
        rims = [Stroke(linewidth=rim_width, foreground=rim, alpha=0.7), Normal()]
        look: dict[str, Any] = {"color": ink, "linewidth": width, "alpha": alpha, "path_effects": rims}
        points = _ring(line) if line.closed else line.points
        (drawn,) = ax.plot(*_on_map(points, extent).T, scalex=False, scaley=False, **look)
        if edge is not None:
            drawn.set_clip_path(edge)
        if labels and line.label_at is not None:
            slant = "normal" if area else "italic"
            look = {"va": "center", "fontstyle": slant, **lettering(size=_NAME_SIZE, dark=dark)}
            x, y = _on_map(line.label_at, extent)
            ax.text(x, y, line.name, parse_math=False, **look)


def _ring(line: Outline) -> Array:
    return np.vstack([line.points, line.points[:1]])


def lettering(*, size: float, dark: bool = False) -> dict[str, Any]:
    """How text on a map is written: legible on light and dark; small letters are clearer `dark` on a light map."""
    from matplotlib.patheffects import Normal, Stroke

    ink, rim = ("0.05", "white") if dark else ("white", "0.05")
    effects = [Stroke(linewidth=2.2, foreground=rim), Normal()]
    return {"color": ink, "fontsize": size, "fontweight": "bold", "ha": "center", "path_effects": effects}


def _on_map(points: Array, extent: Extent) -> Array:
    """Map coordinates (0 to 1) to those of the flat surface."""
    left, right, bottom, top = extent
    return np.array([left, bottom]) + points * np.array([right - left, top - bottom])


def _edge(ax: Axes, lines: list[Outline], extent: Extent) -> Any:
    """The border of the cortex as a clip path; None if the drawing has none."""
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path as Polygon

    if not lines:
        return None
    rings = [Polygon(_on_map(_ring(line), extent), closed=True) for line in lines]
    return PathPatch(Polygon.make_compound_path(*rings), transform=ax.transData, facecolor="none")
