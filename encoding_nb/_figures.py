"""Figures that a notebook shows as pictures without pyplot and without `%matplotlib inline`."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from io import BytesIO
from textwrap import fill
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


SCREEN_DPI = 110
LETTERS_PER_INCH = 10.3  # of a title, even of wide letters


def new_figure(size: tuple[float, float]) -> Figure:
    """A new figure, `size` in inches, that a notebook shows as a picture; it is not registered with pyplot."""
    return _shown_figure()(figsize=size, layout="constrained")


def new_axes(size: tuple[float, float]) -> Axes:
    """Axes of a new figure, `size` in inches; it is not registered with pyplot, so any thread may draw on it."""
    return new_figure(size).add_subplot()


def entitle(ax: Axes, *lines: str, own: bool) -> None:
    """A title whose lines are broken to fit.

    Parameters
    ----------
    ax : Axes
    lines : str
        Empty ones are left out.
    own : bool
        Whether these axes fill a new figure: the title is then centred over the whole figure, where long names at the
        y axis do not push it out.
    """
    figure = ax.get_figure(root=True)
    room = figure.get_size_inches()[0] * (1 if own else ax.get_position().width)
    text = broken(lines, room)
    if own:
        figure.suptitle(text, fontsize="medium")
    else:
        ax.set_title(text, fontsize="medium")


def figure_png(figure: Figure) -> bytes:
    """A figure as PNG, at the resolution of a screen."""
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=SCREEN_DPI)
    return buffer.getvalue()


def broken(lines: Iterable[str], inches: float) -> str:
    """Lines below each other, each broken to a width; empty ones are left out."""
    return "\n".join(fill(line, max(16, int(LETTERS_PER_INCH * inches))) for line in lines if line)


@cache
def _shown_figure() -> type:
    """matplotlib's Figure with a PNG for notebooks; defined here since importing matplotlib takes time."""
    from matplotlib.figure import Figure

    class ShownFigure(Figure):
        """A figure that IPython shows as PNG when it is a cell's value."""

        def _repr_png_(self) -> bytes:
            return figure_png(self)

    return ShownFigure
