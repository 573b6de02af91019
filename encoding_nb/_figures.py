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
LETTERS_PER_INCH = 10.3  # of a title; that is what wide ones need


def new_figure(size: tuple[float, float]) -> Figure:
    """A new figure, `size` in inches, that shows as a picture in a notebook; pyplot knows nothing of it."""
    return _shown_figure()(figsize=size, layout="constrained")


def new_axes(size: tuple[float, float]) -> Axes:
    """Axes of a new figure, `size` in inches; pyplot knows nothing of it, so any thread may draw on it."""
    return new_figure(size).add_subplot()


def entitle(ax: Axes, *lines: str, own: bool) -> None:
    """A title whose lines are broken to the room there is.

    Parameters
    ----------
    ax : Axes
    lines : empty ones are left out
    own : bool
        Whether the figure is the caller's own and holds nothing else: the title then stands over all of it, where
        it does not stick out beside long names at the y axis.
    """
    figure = ax.figure
    room = figure.get_size_inches()[0] * (1 if own else ax.get_position().width)
    text = broken(lines, room)
    if own:
        figure.suptitle(text, fontsize="medium")
    else:
        ax.set_title(text, fontsize="medium")


def broken(lines: Iterable[str], inches: float) -> str:
    """Lines below each other, each broken to a width; empty ones are left out."""
    return "\n".join(fill(line, max(16, int(LETTERS_PER_INCH * inches))) for line in lines if line)


@cache
def _shown_figure() -> type:
    """matplotlib's Figure with a picture of its own; made here since importing matplotlib takes time."""
    from matplotlib.figure import Figure

    class ShownFigure(Figure):
        """A figure that IPython shows as PNG when it is a cell's value."""

        def _repr_png_(self) -> bytes:
            buffer = BytesIO()
            self.savefig(buffer, format="png", dpi=SCREEN_DPI)
            return buffer.getvalue()

    return ShownFigure
