"""The panel's links to the page around it: the code, the download and the tooltips.

Insert below uses JupyterLab's widget manager, which knows the notebook that shows the widget; no extension is needed.
Other programs (VS Code, Colab) offer no such way: there Insert below reports this, and Copy works.
"""

from __future__ import annotations

from collections.abc import Callable

import anywidget
import ipywidgets as widgets
import traitlets

from ..web import WEB
from ._threads import Latest


class CodeView(anywidget.AnyWidget):
    """Code to read, to copy, and to insert below the panel's cell."""

    _esm = WEB / "page.js"
    part = traitlets.Unicode("code").tag(sync=True)
    code = traitlets.Unicode("").tag(sync=True)


class PageLink(anywidget.AnyWidget):
    """The button that downloads all results; it also counts how often a page has shown the panel.

    Parameters
    ----------
    pack : function that returns a file name, its bytes (None for none), and a sentence
        Called in a thread, so that the kernel keeps answering.

    Attributes
    ----------
    seen : int
        0 while no browser has shown the panel, for example when a notebook is executed without one.
    tips : {css class: tooltip}
        Written by the page, since ipywidgets leaves out the tooltips of controls that have a label.
    """

    _esm = WEB / "page.js"
    part = traitlets.Unicode("download").tag(sync=True)
    enabled = traitlets.Bool(False).tag(sync=True)
    seen = traitlets.Int(0).tag(sync=True)
    tips = traitlets.Dict().tag(sync=True)

    def __init__(self, pack: Callable[[], tuple[str, bytes | None, str]]) -> None:
        super().__init__()
        self._pack = pack
        self.packing = Latest(self._send_packed)
        self.on_msg(self._asked)

    def _asked(self, _: object, message: dict, __: object) -> None:
        if message.get("kind") == "zip":
            self.packing.ask()

    def _send_packed(self) -> None:
        name, content, sentence = self._pack()
        self.send({"name": name, "status": sentence}, buffers=[content] if content else None)


def tooltips(widget: widgets.Widget) -> dict[str, str]:
    """{css class `enb-...`: tooltip} of a widget and all widgets in it that have both."""
    found: dict[str, str] = {}
    if tip := getattr(widget, "tooltip", None):
        found |= {name: tip for name in widget._dom_classes if name.startswith("enb-")}
    for child in getattr(widget, "children", ()):
        found |= tooltips(child)
    return found
