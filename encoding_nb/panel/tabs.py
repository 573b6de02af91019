"""What the result tabs have in common: they draw when they are looked at, and not before."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

import ipywidgets as widgets

from .background import Latest
from .theme import alert
from .warning_notes import listening


class ResultTab(widgets.VBox):
    """A tab that is drawn in a thread, once it is in sight and what it shows has changed.

    A subclass gives `title` and `draw`, which sets traits of widgets that exist already. What warnings say while it
    draws goes to `note`, where there is one.
    """

    title = ""
    note: Callable[[str], None] | None = None

    def __init__(self, children: list[widgets.Widget], css_class: str) -> None:
        self._in_sight = False
        self._stale = False
        self._trouble = widgets.HTML()
        self._drawing = Latest(self._draw)
        super().__init__([*children, self._trouble])
        self.add_class(f"enb-tab-{css_class}")

    def changed(self) -> None:
        """Draw anew: at once when the tab is in sight, else when it is looked at."""
        self._stale = True
        if self._in_sight:
            self._drawing.ask()

    def look(self, in_sight: bool) -> None:
        """Take note whether the tab is the one in front."""
        self._in_sight = in_sight
        if in_sight and self._stale:
            self._drawing.ask()

    def drawn(self, timeout: float | None = None) -> bool:
        """Wait until it is drawn, at most `timeout` seconds."""
        return self._drawing.join(timeout)

    def draw(self) -> None:
        """Set the tab's widgets; called in a thread. Each tab has its own."""

    def _draw(self) -> None:
        self._stale = False
        try:
            with listening(self.note) if self.note is not None else nullcontext():
                self.draw()
            self._trouble.value = ""
        except Exception as error:
            self._trouble.value = alert(f"This tab could not be drawn: {error or type(error).__name__}")
            raise
