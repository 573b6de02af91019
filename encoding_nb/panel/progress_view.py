"""How far a run is: a bar, its stages with signs, and a line with the rate and the time left."""

from __future__ import annotations

import threading
import time
from html import escape

import ipywidgets as widgets

from .._progress import Progress
from ..pipeline import STAGES
from .runs import Runs

# Each update is drawn by the browser, on the cores that the fit would use.
UPDATE_SECONDS = 0.25
ANSWER_SECONDS = 3.0  # how long an answer to the user stands while a run goes on; enough to read a sentence
STAGE_NAMES = {"features": "features", "design": "design matrix", "ridge": "ridge", "scores": "scores"}
ENDED = {
    "fit": "The fit stopped with an error; change a setting and press Fit again.",
    "sweep": "The sweep stopped with an error; change a setting and try again.",
    "open": "The data could not be opened; those from before stay.",
}


# modules in which an error is one of reading a model or of using it
MODEL_MODULES = {f"encoding_nb.features.{name}" for name in ("language_model", "models")}


def explained(error: BaseException, runs: Runs) -> str:
    """The error's own sentence; where it is none of ours, what was being done and what to try."""
    text = str(error) or type(error).__name__
    if "ModelError" in f"{type(error).__name__} {text}" and "demo" not in text:  # of a sweep, too
        return f"{text} The bundled model, demo, is always there."
    if isinstance(error, ValueError) or (runs.kind == "open" and isinstance(error, OSError)):
        return text
    what = f"{type(error).__name__}: {text}" if str(error) else text
    if runs.kind == "open":
        return f"These data could not be read ({what}); choose others, or see `load_assembly` for what can be opened."
    if isinstance(error, MemoryError):
        return f"There was not enough memory ({what}); choose a smaller model, fewer stories, or restart other kernels."
    if _place_of(error) in MODEL_MODULES and runs.run_settings is not None:
        return (
            f"{runs.run_settings.model_name} could not be read or used ({what}); choose another model, or the bundled "
            f"one, demo."
        )
    stage = runs.step.stage if runs.step is not None else "features"
    return (
        f"The stage {STAGE_NAMES.get(stage, stage)!r} failed ({what}); change a setting and try again, and if it fails "
        f"with every setting, report the traceback."
    )


def _place_of(error: BaseException) -> str:
    """The innermost module of this package that the error came through."""
    place, trace = "", error.__traceback__
    while trace is not None:
        name = trace.tb_frame.f_globals.get("__name__", "")
        if name.startswith("encoding_nb."):
            place = name
        trace = trace.tb_next
    return place


def describe(step: Progress) -> str:
    """A progress step as one line."""
    rate = f", {step.rate:.0f} words/s" if step.rate and step.stage == "features" else ""
    left = "" if step.seconds_left is None else f", about {step.seconds_left:.0f} s left in this stage"
    return f"{step.stage}: {step.detail}{rate}{left}"


def stages_html(now: str | None, *, all_done: bool = False) -> str:
    """The stages in a line: \u2713 done, \u25b6 now, \u00b7 to come."""
    at = STAGES.index(now) if now in STAGES else -1
    parts = []
    for number, stage in enumerate(STAGES):
        sign = "\u2713" if all_done or number < at else "\u25b6" if number == at else "\u00b7"
        css_class = ' class="enb-now"' if sign == "\u25b6" else ""
        parts.append(f"<span{css_class}>{sign} {STAGE_NAMES[stage]}</span>")
    return f'<div class="enb-stages">{"".join(parts)}</div>'


class ProgressView(widgets.VBox):
    """Bar, stages and status; set from the thread that makes the progress, at most four times a second."""

    def __init__(self) -> None:
        self._last = self._answered = float("-inf")
        self._line = threading.Lock()
        self.bar = widgets.FloatProgress(min=0, max=1, layout=widgets.Layout(width="auto")).add_class(
            "enb-progress"
        )
        self.stages = widgets.HTML(stages_html(None)).add_class("enb-stage-line")
        self.status = widgets.HTML("Ready.").add_class("enb-status")
        super().__init__([self.bar, self.stages, self.status])

    def say(self, text: str) -> None:
        """Write the status."""
        with self._line:
            self._answered = float("-inf")
            self.status.value = escape(text)

    def answer(self, text: str) -> None:
        """Write the status for whoever asked for something while a run goes on: its steps leave it for a while."""
        with self._line:
            self._answered = time.monotonic()
            self.status.value = escape(text)

    def begin(self, text: str) -> None:
        """A run begins."""
        self._last = float("-inf")
        self.bar.value, self.bar.bar_style = 0.0, ""
        self.stages.value = stages_html(None)
        self.say(text)

    def show(self, step: Progress) -> None:
        """Show a step, unless the last one was a moment ago."""
        now = time.monotonic()
        if now - self._last < UPDATE_SECONDS:
            return
        self._last = now
        self.bar.value = step.overall
        stages = stages_html(step.stage)
        if self.stages.value != stages:
            self.stages.value = stages
        with self._line:
            if now - self._answered >= ANSWER_SECONDS:
                self.status.value = escape(describe(step))

    def end(self, style: str, text: str) -> None:
        """A run is over: `style` is the bar's, "success", "warning" or "danger"."""
        self.bar.bar_style = style
        if style == "success":
            self.bar.value = 1.0
            self.stages.value = stages_html(None, all_done=True)
        self.say(text)
