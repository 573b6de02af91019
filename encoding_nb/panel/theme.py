"""The panel's looks: a style sheet on top of JupyterLab's colours, and the pieces of HTML and widgets that it styles.

Colour is never the only sign: a problem has a sign and a sentence, and the current stage has a sign too.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from typing import Any

import ipywidgets as widgets

from ..web import WEB

LABEL_WIDTH = "92px"
WIDE = {"description_width": LABEL_WIDTH}


def style_sheet() -> widgets.HTML:
    """The style sheet as a widget without a size; it must be part of the panel."""
    css = (WEB / "panel.css").read_text(encoding="utf-8")
    return widgets.HTML(f"<style>{css}</style>", layout={"height": "0", "margin": "0"})


def note(text: str) -> str:
    """An explanation in small print under a control."""
    return f'<div class="enb-note">{escape(text)}</div>' if text else ""


def problem(sentence: str | None) -> str:
    """What is wrong with a control's value."""
    return f'<div role="alert" class="enb-problem">\u26a0 {escape(sentence)}</div>' if sentence else ""


def warned(sentence: str) -> str:
    """Something on the page that is outdated, or to be read with care."""
    return f'<div class="enb-outdated">\u26a0 {escape(sentence)}</div>'


def alert(sentence: str, trace: str = "") -> str:
    """An error of the whole panel, with its traceback folded away."""
    if not sentence:
        return ""
    folded = f"<details><summary>traceback</summary><pre>{escape(trace)}</pre></details>" if trace else ""
    return f'<div role="alert" class="enb-alert">\u26a0 {escape(sentence)}{folded}</div>'


def table(caption: str, head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table that scrolls by itself; each cell is escaped."""
    heads = "".join(f"<th scope='col'>{escape(name)}</th>" for name in head)
    lines = "".join(
        "<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows
    )
    return (
        f'<div class="enb-scroll"><table><caption>{escape(caption)}</caption>'
        f"<thead><tr>{heads}</tr></thead><tbody>{lines}</tbody></table></div>"
    )


def button(text: str, icon: str, tooltip: str, css_class: str, **layout: str) -> widgets.Button:
    """A button with an icon."""
    return widgets.Button(description=text, icon=icon, tooltip=tooltip, layout=layout).add_class(css_class)


def labelled(
    kind: type[widgets.Widget],
    label: str,
    tooltip: str,
    css_class: str,
    *,
    width: str = "auto",
    **options: Any,
) -> Any:
    """A control next to its label; `options` are those of its class."""
    options = {"style": WIDE, "layout": {"width": width}} | options
    return kind(description=label, tooltip=tooltip, **options).add_class(css_class)


class Picture(widgets.HTML):
    """A picture with a description for screen readers; hidden while it is empty.

    Attributes
    ----------
    png : bytes
    """

    def __init__(self, css_class: str, *, max_width: str = "900px") -> None:
        self.png = b""
        self._css_class = css_class
        super().__init__(layout=widgets.Layout(width="100%", max_width=max_width, display="none"))

    def show(self, png: bytes, text: str) -> None:
        """Show a PNG; `text` describes it."""
        self.png = png
        source = f"data:image/png;base64,{base64.b64encode(png).decode()}"
        self.value = f'<img class="enb-picture {self._css_class}" alt="{escape(text)}" src="{source}">'
        self.layout.display = None

    def clear(self) -> None:
        """Show nothing."""
        self.png, self.value, self.layout.display = b"", "", "none"
