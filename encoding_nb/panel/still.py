"""A picture of the last result beside the live panel, for viewers without a kernel."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

from .. import plots
from ..pipeline import Result

Bundle = dict[str, Any]


def with_picture(bundle: Any, result: Result | None) -> Any:
    """A widget's bundle of representations, and a PNG of the result among them where there is one."""
    data = bundle[0] if isinstance(bundle, tuple) else bundle
    if result is not None and data is not None:
        draw = plots.plot_flatmap if result.surface is not None else plots.plot_stories
        data["image/png"] = base64.b64encode(draw(result)._repr_png_()).decode()
    return bundle


class Still:
    """Shows a panel under a name of its own, by which a picture can join it in its cell later.

    Parameters
    ----------
    bundle : function that gives the panel's representations as they are now
    """

    def __init__(self, bundle: Callable[[], Any]) -> None:
        self._bundle = bundle
        self._handle: Any = None

    def display(self) -> None:
        """Show the panel in the cell that runs."""
        from IPython.display import display

        self._handle = display(self._data(), raw=True, display_id=True)

    def update(self, result: Result | None, *, seen: bool) -> None:
        """Put the picture into the panel's cell, unless a browser shows the panel there: it would blink."""
        if self._handle is not None and result is not None and not seen:
            self._handle.update(self._data(), raw=True)

    def _data(self) -> Bundle:
        bundle = self._bundle()
        return (bundle[0] if isinstance(bundle, tuple) else bundle) or {}
