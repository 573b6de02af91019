"""The panel's looks: one style sheet over JupyterLab's own colours, and the few pieces of HTML that it is for.

Nothing is said by colour alone: what is wrong has a sign and a sentence, a chosen stage has a sign too.
"""

from __future__ import annotations

import base64
from html import escape

import ipywidgets as widgets

LABEL_WIDTH = "92px"
WIDE = {"description_width": LABEL_WIDTH}

STYLE = """
.enb-panel { max-width: 100%; overflow-x: hidden; }
.enb-panel .widget-html-content { line-height: 1.4; }
.enb-panel .enb-left { overflow: visible; flex: 0 0 348px; width: 348px; max-width: 100%; }
.enb-panel .enb-left .widget-box { overflow: visible; }
.enb-panel .enb-right { flex: 1 1 440px; min-width: 0; }
.enb-panel .enb-note { font-size: 85%; line-height: 1.35; margin: 0 0 4px 96px; color: var(--jp-ui-font-color1, #333); }
.enb-panel .enb-problem { line-height: 1.35; margin: 2px 0 6px 96px; color: var(--jp-ui-font-color0, #000);
  border-left: 4px solid var(--jp-error-color1, #b00020); padding-left: 6px; }
.enb-panel .enb-alert { border-left: 4px solid var(--jp-error-color1, #b00020); padding-left: 8px; }
.enb-panel .enb-alert pre { max-height: 260px; overflow: auto; font-size: 85%; }
.enb-panel .enb-stages { display: flex; flex-wrap: wrap; gap: 0 10px; }
.enb-panel .enb-stages span { white-space: nowrap; }
.enb-panel .enb-stages .enb-now { font-weight: bold; }
.enb-panel img.enb-picture { display: block; width: 100%; height: auto; background: #fff; }
.enb-panel .enb-section > button { width: 100%; text-align: left; }
.enb-panel .enb-section-body { padding: 4px 0 6px 0; }
.enb-panel :focus-visible { outline: 2px solid var(--jp-brand-color1, #1976d2); outline-offset: 1px; }
.enb-panel .enb-page-bar { display: flex; flex-wrap: wrap; gap: 6px; align-items: center; margin: 2px 0; }
.enb-panel .enb-code { overflow: auto; padding: 6px; background: var(--jp-layout-color2, #eee);
  color: var(--jp-ui-font-color0, #000); white-space: pre-wrap; }
.enb-panel .enb-scroll { overflow: auto; max-width: 100%; }
.enb-panel .enb-scroll table { border-collapse: collapse; font-size: 90%; }
.enb-panel .enb-scroll th, .enb-panel .enb-scroll td { padding: 1px 8px; text-align: right; white-space: nowrap;
  border-bottom: 1px solid var(--jp-border-color2, #ddd); }
.enb-panel .enb-scroll th:first-child, .enb-panel .enb-scroll td:first-child { text-align: left; }
.enb-panel .enb-runs td { white-space: normal; text-align: left; }
.enb-panel .enb-words { line-height: 1.7; max-height: 110px; overflow: auto; }
.enb-panel.enb-compact .enb-left { flex-basis: 300px; width: 300px; }
.enb-panel.enb-compact .enb-right { flex-basis: 380px; }
.enb-panel.enb-compact .enb-scroll { max-height: 220px; }
"""


def style_sheet() -> widgets.HTML:
    """The style sheet as a widget without a size; it belongs into the panel."""
    return widgets.HTML(f"<style>{STYLE}</style>", layout=widgets.Layout(height="0", margin="0"))


def note(text: str) -> str:
    """An explanation in small print, under the control that it belongs to."""
    return f'<div class="enb-note">{escape(text)}</div>' if text else ""


def problem(sentence: str | None) -> str:
    """What is wrong with a control's value, under it."""
    return f'<div role="alert" class="enb-problem">\u26a0 {escape(sentence)}</div>' if sentence else ""


def alert(sentence: str, trace: str = "") -> str:
    """What went wrong in the panel as a whole, with the traceback folded away."""
    if not sentence:
        return ""
    folded = f"<details><summary>traceback</summary><pre>{escape(trace)}</pre></details>" if trace else ""
    return f'<div role="alert" class="enb-alert">\u26a0 {escape(sentence)}{folded}</div>'


class Picture(widgets.HTML):
    """A picture with a text for those who cannot see it; hidden while there is none.

    Attributes
    ----------
    png : bytes
    """

    def __init__(self, css_class: str, *, max_width: str = "900px") -> None:
        self.png = b""
        self._css_class = css_class
        super().__init__(layout=widgets.Layout(width="100%", max_width=max_width, display="none"))

    def show(self, png: bytes, text: str) -> None:
        """Show a PNG; `text` says in words what is on it."""
        self.png = png
        source = f"data:image/png;base64,{base64.b64encode(png).decode()}"
        self.value = f'<img class="enb-picture {self._css_class}" alt="{escape(text)}" src="{source}">'
        self.layout.display = None

    def clear(self) -> None:
        """Show nothing."""
        self.png, self.value, self.layout.display = b"", "", "none"
