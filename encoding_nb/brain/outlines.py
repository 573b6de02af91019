"""ROI and sulcus outlines of a subject, read from pycortex's SVG drawing (`overlays.svg`) without Inkscape.

Outlines are polylines in *map* coordinates: (0, 0) the lower left corner of the flatmap, (1, 1) the upper
right, so that they fit an image of any height. Curves are cut into short straight pieces.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes


NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_TOKEN = re.compile(rf"[MmZzLlHhVvCcSsQqTtAa]|{NUMBER}")
_ARGUMENTS = {"M": 2, "L": 2, "H": 1, "V": 1, "C": 6, "S": 4, "Q": 4, "T": 2, "A": 7, "Z": 0}
_PIECES = 12  # straight pieces per curve


def transform_matrix(text: str) -> Array:
    """The 3 by 3 matrix of an SVG `transform` attribute."""
    total = np.eye(3)
    for kind, inner in re.findall(r"(\w+)\s*\(([^)]*)\)", text):
        n = [float(v) for v in re.findall(NUMBER, inner)]
        step = np.eye(3)
        if kind == "matrix":
            step[:2] = np.reshape(n, (3, 2)).T
        elif kind == "translate":
            step[:2, 2] = n[0], n[1] if len(n) > 1 else 0.0
        elif kind == "scale":
            step[0, 0], step[1, 1] = n[0], n[-1]
        elif kind == "rotate":
            angle, centre = np.deg2rad(n[0]), np.array(n[1:3] or [0.0, 0.0])
            step[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
            step[:2, 2] = centre - step[:2, :2] @ centre
        else:
            raise ValueError(f"transform {kind!r} is not supported")
        total = total @ step
    return total


def polylines(data: str) -> list[tuple[Array, bool]]:
    """The polylines, (n_points, 2) each, and whether each is closed, of the `d` attribute of an SVG path.

    Raises
    ------
    ValueError
        A command or a number where the SVG grammar allows none.
    """
    lines: list[tuple[list[Array], bool]] = []
    at = start = handle = np.zeros(2)
    before = ""
    for command, values in _commands(data):
        kind, base = command.upper(), at if command.islower() else np.zeros(2)
        if kind == "M":
            at = start = base + values
            lines.append(([at], False))
        elif not lines:
            raise ValueError("the path does not begin with a move")
        elif kind == "Z":
            lines[-1] = (lines[-1][0], True)
            at = start
        else:
            if lines[-1][1]:  # drawing goes on after a close: a new line from its start
                lines.append(([start], False))
            if before not in ("CS" if kind == "S" else "QT"):
                handle = at
            points, handle = _segment(kind, values, base, at, handle)
            at = points[-1]
            lines[-1][0].extend(points)
        before = kind
    return [(np.array(points), closed) for points, closed in lines if len(points) > 1]


def _commands(data: str) -> Iterator[tuple[str, Array]]:
    """Each drawing command with its numbers; repeated numbers repeat the command, as the grammar says."""
    tokens = _TOKEN.findall(data)
    if re.sub(rf"{_TOKEN.pattern}|[\s,]", "", data):
        raise ValueError("unknown characters in the path")
    command, i = "", 0
    while i < len(tokens):
        if tokens[i].isalpha():
            command, i = tokens[i], i + 1
        elif command in ("", "Z", "z"):
            raise ValueError("a number stands where a command should")
        n = _ARGUMENTS[command.upper()]
        if any(token.isalpha() for token in tokens[i : i + n]) or i + n > len(tokens):
            raise ValueError(f"command {command!r} needs {n} numbers")
        yield command, np.array([float(token) for token in tokens[i : i + n]])
        i += n
        command = {"M": "L", "m": "l"}.get(command, command)


def _segment(kind: str, values: Array, base: Array, at: Array, handle: Array) -> tuple[list[Array], Array]:
    """Points of one segment after its start, and the control point that a smooth successor mirrors."""
    if kind == "H":
        return [np.array([base[0] + values[0], at[1]])], at
    if kind == "V":
        return [np.array([at[0], base[1] + values[0]])], at
    if kind == "A":
        return _arc(at, base + values[5:], radii=values[:2], tilt=values[2], flags=values[3:5]), at
    controls = [base + pair for pair in values.reshape(-1, 2)]
    if kind in "ST":  # the first control point mirrors the one before
        controls.insert(0, 2 * at - handle)
    if len(controls) == 1:
        return controls, at
    return _bezier([at, *controls]), controls[-2]


def _bezier(controls: list[Array]) -> list[Array]:
    """Points on a Bezier curve of any order, by de Casteljau's construction, its start left out."""
    t = np.arange(1, _PIECES + 1)[:, None] / _PIECES
    level = [np.broadcast_to(point, (_PIECES, 2)) for point in controls]
    while len(level) > 1:
        level = [(1 - t) * a + t * b for a, b in pairwise(level)]
    return list(level[0])


def _arc(start: Array, end: Array, *, radii: Array, tilt: float, flags: Array) -> list[Array]:
    """Points on an elliptical arc, its start left out (SVG 1.1, appendix F.6)."""
    radii = np.abs(radii)
    if np.allclose(start, end) or not radii.all():
        return [end]
    phi = np.deg2rad(tilt)
    turn = np.array([[np.cos(phi), np.sin(phi)], [-np.sin(phi), np.cos(phi)]])
    half = turn @ (start - end) / 2 / radii  # on the unit circle
    length = half @ half
    if length > 1:  # radii too small to reach: they grow until they do
        radii, half, length = radii * np.sqrt(length), half / np.sqrt(length), 1.0
    side = -1.0 if flags[0] == flags[1] else 1.0
    centre = side * np.sqrt(1 / length - 1) * np.array([half[1], -half[0]])
    first, last = (np.arctan2(*(point - centre)[::-1]) for point in (half, -half))
    sweep = (last - first) % (2 * np.pi) if flags[1] else -((first - last) % (2 * np.pi))
    angles = first + sweep * np.arange(1, 2 * _PIECES + 1) / (2 * _PIECES)
    circle = centre + np.column_stack([np.cos(angles), np.sin(angles)])
    return list((circle * radii) @ turn + (start + end) / 2)


Array = np.ndarray

_SVG = "{http://www.w3.org/2000/svg}"
_LABEL = "{http://www.inkscape.org/namespaces/inkscape}label"
_LABEL_ROOM = np.array([0.05, 0.037])  # width and height that a name takes on a map of 6 inches
_OUTSIDE = 0.25  # a place outside the area is as bad as such a share of a name covered
_NAME_SIZE = 7  # points


@dataclass(frozen=True, eq=False)
class Outline:
    """One drawn line.

    Attributes
    ----------
    layer : str
        "rois", "sulci", "edge" (the border of the cortex), or another layer of the drawing.
    name : str
        The area's or sulcus's name; an area has one outline per hemisphere.
    points : array, (n_points, 2)
        Map coordinates, 0 to 1 from left to right and from bottom to top.
    closed : bool
    label_at : array, (2,), optional
        Where its name is written; None where another piece of the same drawing bears it.
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


def read_outlines(svg_file: Path) -> tuple[Outline, ...]:
    """All drawn lines of an `overlays.svg`; none, with a warning, where it is missing or cannot be parsed."""
    return read_drawing(svg_file)[0]


def read_drawing(svg_file: Path) -> tuple[tuple[Outline, ...], str]:
    """The outlines of `read_outlines`, and in a few words why there are none; nothing where it could be read."""
    from lxml import etree

    try:
        root = etree.parse(str(svg_file), etree.XMLParser(huge_tree=True, resolve_entities=False)).getroot()
        size = _drawing_size(root)
    except (etree.XMLSyntaxError, OSError, ValueError) as error:
        there = svg_file.is_file()
        why = f"cannot be read ({error})" if there else "are not there"
        warnings.warn(f"The outlines of {svg_file} {why}; the map is drawn without them.", stacklevel=3)
        return (), f"{svg_file.name} {'cannot be read' if there else 'is missing'}"
    return place_labels(tuple(_outlines(root, size, svg_file))), ""


def _drawing_size(root: Any) -> tuple[float, float]:
    """Width and height of the drawing in its own units."""
    if root.get("viewBox"):
        numbers = [float(n) for n in re.findall(NUMBER, root.get("viewBox"))]
        if len(numbers) == 4 and min(numbers[2:]) > 0:
            return numbers[2], numbers[3]
    found = [re.match(NUMBER, root.get(name, "")) for name in ("width", "height")]
    if root.tag != f"{_SVG}svg" or None in found:
        raise ValueError("expected an SVG drawing with a width and a height")
    return float(found[0].group()), float(found[1].group())


def _outlines(root: Any, size: tuple[float, float], source: Path) -> Iterator[Outline]:
    for path in root.iterfind(f"{_SVG}defs//{_SVG}clipPath[@id='edgeclip']//{_SVG}path"):
        for points, closed in _polylines_of(path, size, source):
            yield Outline("edge", "edge", points, closed)
    for layer in root.iterfind(f"{_SVG}g"):
        name = layer.get(_LABEL, "")
        if name == "data":  # background pictures
            continue
        for shapes in layer.iterfind(f"{_SVG}g[@{_LABEL}='shapes']"):
            yield from _shapes(shapes, name, size, source)


def _shapes(shapes: Any, layer: str, size: tuple[float, float], source: Path) -> Iterator[Outline]:
    for group in shapes.iterfind(f"{_SVG}g"):
        if "display:none" in group.get("style", "").replace(" ", ""):  # hidden by whoever drew it
            continue
        for path in group.iterfind(f".//{_SVG}path"):
            pieces = _polylines_of(path, size, source)
            longest = max((len(points) for points, _ in pieces), default=0)
            for points, closed in pieces:
                where = points.mean(0) if len(points) == longest else None
                yield Outline(layer, group.get(_LABEL, ""), points, closed, where)


def _polylines_of(path: Any, size: tuple[float, float], source: Path) -> list[tuple[Array, bool]]:
    """The polylines of one path element in map coordinates, transforms of its parents applied."""
    try:
        matrix = np.eye(3)
        for element in (path, *path.iterancestors()):
            matrix = transform_matrix(element.get("transform", "")) @ matrix
        lines = polylines(path.get("d", ""))
    except (ValueError, IndexError) as error:
        name = path.getparent().get(_LABEL) or path.get("id")
        warnings.warn(f"{source}: the outline of {name!r} is left out ({error}).", stacklevel=2)
        return []
    found = []
    for points, closed in lines:
        x, y = (np.column_stack([points, np.ones(len(points))]) @ matrix.T)[:, :2].T
        found.append((np.column_stack([x / size[0], 1 - y / size[1]]), closed))
    return found


def place_labels(outlines: tuple[Outline, ...]) -> tuple[Outline, ...]:
    """The outlines with places for their names: on the cortex, inside the area, clear of each other.

    Where that cannot be, names overlap as little as can be, or stand close to their area. The smallest areas choose
    first and sulci last: a line has room along its length. A drawing in several pieces bears its name on the
    longest.
    """
    edges = [line for line in outlines if line.layer == "edge"]
    placed: list[Array] = []
    done = dict.fromkeys(range(len(outlines)))
    for i in sorted(done, key=lambda i: (outlines[i].layer != "rois", _size(outlines[i].points))):
        line = outlines[i]
        places, faults = _places(line, edges) if line.label_at is not None else ([], 0)
        if len(places):
            covered = sum(_overlap(places, other) for other in placed)
            done[i] = places[np.argmin(covered + faults)]  # the first of the best
            placed.append(done[i])
    return tuple(replace(line, label_at=done[i]) for i, line in enumerate(outlines))


def _size(points: Array) -> float:
    return float(np.prod(np.ptp(points, axis=0)))


def _overlap(places: Array, other: Array) -> Array:
    """(n,): the share of a name that another one at `other` covers."""
    return np.clip(1 - np.abs(places - other) / _LABEL_ROOM, 0, 1).prod(axis=1)


def _places(line: Outline, edges: list[Outline]) -> tuple[Array, Array]:
    """(n, 2): where a name could stand, the best first; and (n,) what stands against each place."""
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
    beside = (low + high) / 2 + eight * ((high - low) / 2 + _LABEL_ROOM / 2)
    places = np.vstack([grid[np.argsort(-away)], beside])
    return places, np.where(np.arange(len(places)) < len(grid), 0.0, _OUTSIDE)


def draw_outlines(
    ax: Axes,
    outlines: Sequence[Outline],
    *,
    extent: tuple[float, float, float, float],
    areas: Sequence[str] = (),
    sulci: bool = False,
    labels: bool = True,
    dark: bool = False,
) -> None:
    """Draw outlines, and their names, on axes whose data coordinates are `extent`; `dark` suits a light map."""
    from matplotlib.patheffects import Normal, Stroke

    ink, rim = ("0.1", "white") if dark else ("white", "0.1")
    edge = _edge(ax, [line for line in outlines if line.layer == "edge"], extent)
    for line in outlines:
        area = line.layer == "rois" and line.name in areas
        if not area and not (sulci and line.layer == "sulci"):
            continue
        points = np.vstack([line.points, line.points[:1]]) if line.closed else line.points
        (drawn,) = ax.plot(
            *_on_map(points, extent).T,
            color=ink,
            linewidth=0.9 if area else 1.8,
            alpha=1.0 if area else 0.6,
            path_effects=[Stroke(linewidth=2.1 if area else 3.0, foreground=rim, alpha=0.7), Normal()],
            scalex=False,
            scaley=False,
        )
        if edge is not None:
            drawn.set_clip_path(edge)
        if labels and line.label_at is not None:
            style = "normal" if area else "italic"
            ax.text(
                *_on_map(line.label_at, extent),
                line.name,
                va="center",
                fontstyle=style,
                parse_math=False,
                **lettering(size=_NAME_SIZE, dark=dark),
            )


def lettering(*, size: float, dark: bool = False) -> dict[str, Any]:
    """How text on a map is written: legible on light and dark; small letters are clearer `dark` on a light map."""
    from matplotlib.patheffects import Normal, Stroke

    ink, rim = ("0.05", "white") if dark else ("white", "0.05")
    effects = [Stroke(linewidth=2.2, foreground=rim), Normal()]
    return {"color": ink, "fontsize": size, "fontweight": "bold", "ha": "center", "path_effects": effects}


def _on_map(points: Array, extent: tuple[float, float, float, float]) -> Array:
    """Map coordinates (0 to 1) to those of the flat surface."""
    left, right, bottom, top = extent
    return np.array([left, bottom]) + points * np.array([right - left, top - bottom])


def _edge(ax: Axes, lines: list[Outline], extent: tuple[float, float, float, float]) -> Any:
    """The border of the cortex as a clip path; None where the drawing has none."""
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path as Polygon

    if not lines:
        return None
    rings = [
        Polygon(_on_map(np.vstack([line.points, line.points[:1]]), extent), closed=True) for line in lines
    ]
    return PathPatch(Polygon.make_compound_path(*rings), transform=ax.transData, facecolor="none")
