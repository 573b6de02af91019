"""The geometry of SVG: path data to polylines, transform attributes to matrices."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise

import numpy as np

Array = np.ndarray

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
