"""The lines under the Fit button: whether a fit can start, what it needs, how far a run is, and what failed."""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from html import escape

import ipywidgets as widgets

from .. import brain, features, pipeline
from .._progress import Progress
from .._validation import error_text
from ..pipeline import STAGES, Estimate
from ..settings import Settings
from ._threads import Latest, warnings_to
from .controls import Controls
from .session import Session
from .tabs import LayersTab
from .theme import alert, note

UPDATE_SECONDS = 0.25  # each update is drawn by the browser, on the cores that the fit uses
ANSWER_SECONDS = 3.0  # how long an answer to the user stays during a run; enough to read a sentence
STAGE_NAMES = {"features": "features", "design": "design matrix", "ridge": "ridge", "scores": "scores"}
NO_SWEEP = "A sweep over layers needs the language model among the features."


class FitStatus(widgets.VBox):
    """Whether a fit can start: enables the buttons, shows each problem at its control, and estimates the fit.

    Its methods are called by the page's thread, and by those of the model lookup, the estimate and the run.

    Parameters
    ----------
    session, controls, layers : of the panel
    buttons : Fit, Cancel, and the check of the split

    Attributes
    ----------
    on_checked : called after each check of the settings
    """

    def __init__(
        self, session: Session, controls: Controls, layers: LayersTab, buttons: Sequence[widgets.Button]
    ) -> None:
        self._session, self._controls, self._layers = session, controls, layers
        self._fit, self._cancel, self._split = buttons
        self._lock = threading.RLock()  # for all that follows
        self._problems: Mapping[str, str] = {}
        self._shortage: tuple[Settings | None, dict[str, str]] = (None, {})
        self._others, self._failure = widgets.HTML(), widgets.HTML()
        self._retired = False
        self.on_checked: Callable[[], None] = lambda: None
        self.error = widgets.VBox([self._others, self._failure]).add_class("enb-error")
        self._reason = widgets.HTML().add_class("enb-reason")
        self._estimate = widgets.HTML().add_class("enb-estimate")
        self.estimating = Latest(self._show_estimate, wait=0.2)
        super().__init__([self._reason, self._estimate])

    def check(self) -> None:
        """Check the settings of the controls."""
        with self._lock:  # a newer check must not be overwritten by an older one
            try:
                self._problems = self._check()
            except Exception as error:  # noqa: BLE001 - shown, and Fit off, instead of an outdated panel
                sentence = f"These settings cannot be checked ({error_text(error)}); undo the last change."
                self._problems = {"settings": sentence}
            if self._problems:
                self._estimate.value = self._layers.needs.value = ""
            else:
                self.estimating.ask(self._session.settings)
            self._show_problems()
            self.on_checked()

    def _check(self) -> dict[str, str]:
        trouble = self._controls.adapt()
        settings, problems = self._controls.read()
        self._session.settings = settings
        if trouble is None:
            return pipeline.check(self._session.assembly, settings) | problems
        # checking this model would wait for the network or fail: check the rest
        others = replace(settings, model_name="demo", layer_idx=0, lookback=1, stride=None)
        return pipeline.check(self._session.assembly, others) | problems | {"model_name": trouble}

    def _show_problems(self) -> None:
        self._others.value = alert(" ".join(self._controls.show_problems(self.problems)))
        self.allow()

    @property
    def problems(self) -> Mapping[str, str]:
        """{setting: sentence} of all that keeps Fit disabled, too little memory included."""
        settings, shortage = self._shortage
        return self._problems or (shortage if settings == self._session.settings else {})

    def allow(self) -> None:
        """Enable the buttons that may be pressed now, and give the reason if Fit is disabled."""
        with self._lock:  # a run may end between reading its state and showing it
            running, problems = self._session.running, self.problems
            for button in (self._fit, self._layers.button, self._split):
                button.disabled = bool(problems) or running or self._retired
            self._cancel.disabled = not running or self._retired
            labels = ", ".join(dict.fromkeys(self._controls.label_of(name) for name in problems))
            self._reason.value = note(f"Fit is disabled: fix {labels} first.") if labels else ""

    def retire(self) -> None:
        """Disable all buttons from now on."""
        self._retired = True
        self.allow()

    def show_failure(self, sentence: str, error: BaseException | None = None) -> None:
        """Show what failed, with its traceback folded away, until the next start; an empty sentence clears it."""
        trace = "".join(traceback.format_exception(error)) if error is not None else ""
        self._failure.value = alert(sentence, trace)

    # ------------------------------------------------------------------ the estimate

    def warm_up(self) -> None:
        """Do in a thread what every fit on these data needs once, while the user looks at the settings."""
        threading.Thread(target=self._prepare, daemon=True).start()

    def _prepare(self) -> None:
        session = self._session
        keep = partial(session.note, notes=session.data_notes)
        with suppress(Exception), warnings_to(keep):  # the fit shows errors
            pipeline.prepare(session.assembly, session.settings, memory=session.memory)
            if session.assembly.surface is not None:
                brain.flat_mapper(session.assembly.surface)

    def _show_estimate(self, settings: Settings) -> None:
        short: dict[str, str] = {}
        try:
            found = pipeline.estimate(self._session.assembly, settings, memory=self._session.memory)
            if found.problem and not self._session.running:  # the memory of a run is free again after it
                short = self._shortage_of(settings, found)
            self._estimate.value = f"<div>This fit: {escape(str(found))}.</div>"
            self._layers.needs.value = escape(sweep_needs(settings, found))
        except Exception as error:  # noqa: BLE001 - an old estimate must not remain
            self._estimate.value = note(f"No estimate: {error_text(error)}")
            self._layers.needs.value = ""
        with self._lock:
            self._shortage = (settings, short)
            self._show_problems()

    def _shortage_of(self, settings: Settings, found: Estimate) -> dict[str, str]:
        """{setting: sentence} for a fit that needs more memory than is free: at the model if its weights need most."""
        largest = max(found.bytes, key=found.bytes.__getitem__)
        sentence = f"{found.problem} If you free memory, change any setting to check again."
        if settings.model_name != "demo" and "language_model" in (settings.modality, *settings.joined_with):
            smaller = replace(settings, model_name="demo", layer_idx=0)
            if pipeline.estimate(self._session.assembly, smaller, memory=self._session.memory).fits:
                sentence += " The bundled model 'demo' would fit."
        return {"model_name" if largest == "features" else "stories": sentence}


def sweep_needs(settings: Settings, found: Estimate) -> str:
    """What a sweep over all layers needs at most, from the estimate of one fit."""
    if "language_model" not in (settings.modality, *settings.joined_with):
        return NO_SWEEP
    n_layers = features.model_info(settings.model_name).n_layers + 1
    # the first fit reads the features of all layers
    seconds = {stage: s * (1 if stage == "features" else n_layers) for stage, s in found.seconds.items()}
    return f"A sweep: {n_layers} layers, {replace(found, seconds=seconds)}."


# ---------------------------------------------------------------------- the progress


class ProgressView(widgets.VBox):
    """Bar, stages and status line; set from the thread of the run, at most four times a second."""

    def __init__(self) -> None:
        self._last = self._answered = float("-inf")
        self._lock = threading.Lock()
        self._stage: str | None = None  # of the latest step
        self._end: tuple[str, str, str] | None = None  # bar style, status and stages of a run that is done
        self._outdated = ""
        self.bar = widgets.FloatProgress(min=0, max=1, layout={"width": "auto"}).add_class("enb-progress")
        self.stages = widgets.HTML(stages_html(None)).add_class("enb-stage-line")
        self.status = widgets.HTML("Ready.").add_class("enb-status")
        super().__init__([self.bar, self.stages, self.status])

    def write(self, text: str, *, answer: bool = False) -> None:
        """Write the status line; the steps of a run leave an answer to the user in place for a while."""
        with self._lock:
            self._answered = time.monotonic() if answer else float("-inf")
            self.status.value = escape(text)

    def begin(self, text: str) -> None:
        """A run begins."""
        self._last, self._stage, self._end = float("-inf"), None, None
        self.bar.value, self.bar.bar_style = 0.0, ""
        self.stages.value = stages_html(None)
        self.write(text)

    def show(self, step: Progress) -> None:
        """Show a step, unless the last one was a moment ago."""
        now, self._stage = time.monotonic(), step.stage
        if now - self._last < UPDATE_SECONDS:
            return
        self._last = now
        self.bar.value = step.overall
        stages = stages_html(step.stage)
        if self.stages.value != stages:
            self.stages.value = stages
        with self._lock:
            if now - self._answered >= ANSWER_SECONDS:
                self.status.value = escape(describe(step))

    def end(self, style: str, text: str, *, fitted: bool = False) -> None:
        """A run has ended: `style` is the bar's, "success", "warning" or "danger"; `fitted`: all stages are done."""
        self.bar.bar_style = style
        if style == "success":
            self.bar.value = 1.0
        self.stages.value = stages_html(
            None if style == "success" else self._stage, all_done=fitted, over=True
        )
        self._end, self._outdated = (style, text, self.stages.value) if fitted else None, ""
        self.write(text)

    def show_age(self, outdated: str) -> None:
        """After a fit or sweep: show its end, or, in place of "Done", in what it is outdated."""
        if self._end is None or outdated == self._outdated:
            return
        self._outdated = outdated
        style, text, stages = ("warning", outdated, stages_html(None)) if outdated else self._end
        self.bar.bar_style, self.stages.value = style, stages
        self.write(text)


def describe(step: Progress) -> str:
    """A progress step in one line."""
    words = rate = ""
    if step.stage == "features" and step.total > 1:
        words = f", {step.done:,.0f} of {step.total:,.0f} words"
        words += "; the time left is known after the first ones" if step.done == 0 else ""
        rate = f", {step.rate:.{0 if step.rate >= 10 else 1}f} words/s" if step.rate else ""
    left = "" if step.seconds_left is None else f", about {_time_left(step.seconds_left)} left in this stage"
    return f"{step.stage}: {step.detail}{words}{rate}{left}"


def _time_left(seconds: float) -> str:
    return (
        f"{seconds:.0f} s"
        if seconds < 120
        else f"{seconds / 60:.0f} min"
        if seconds < 5400
        else f"{seconds / 3600:.1f} h"
    )


def stages_html(now: str | None, *, all_done: bool = False, over: bool = False) -> str:
    """The stages in a line: \u2713 done, \u25b6 now, \u00b7 to come; `over`: the run ended at stage `now`."""
    at = STAGES.index(now) if now in STAGES else -1
    parts = []
    for number, stage in enumerate(STAGES):
        sign = "\u2713" if all_done or number < at else "\u25b6" if number == at and not over else "\u00b7"
        css_class = ' class="enb-now"' if sign == "\u25b6" else ""
        parts.append(f"<span{css_class}>{sign} {STAGE_NAMES[stage]}</span>")
    return f'<div class="enb-stages">{"".join(parts)}</div>'
