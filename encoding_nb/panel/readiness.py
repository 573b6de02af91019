"""Whether a fit can start, what stands against it, and what it will take."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import fields, replace
from html import escape

import ipywidgets as widgets

from .. import brain, features, pipeline
from .._validation import shorten
from ..assembly import Assembly
from ..pipeline import Estimate
from ..settings import Settings
from .background import Latest
from .controls import Controls
from .runs import Runs
from .theme import note
from .warning_notes import listening

LOOK_AGAIN_SECONDS = 5.0  # for memory that has become free, while a fit waits for it
NO_SWEEP = "A sweep over layers needs the language model among the features."


class Readiness(widgets.VBox):
    """Two lines under the Fit button: why it is off, and what a fit will take.

    Parameters
    ----------
    runs : Runs
    on_estimate : called in another thread when an estimate is there and `shortage` may have changed
    say_sweep : called with what a sweep would take
    """

    def __init__(self, runs: Runs, on_estimate: Callable[[], None], say_sweep: Callable[[str], None]) -> None:
        self._runs, self._on_estimate, self._say_sweep = runs, on_estimate, say_sweep
        self._short: tuple[Settings, dict[str, str]] | None = None
        self._reason = widgets.HTML().add_class("enb-reason")
        self._estimate = widgets.HTML().add_class("enb-estimate")
        self._estimating = Latest(self._show_estimate, wait=0.2)
        super().__init__([self._reason, self._estimate])

    def examine(self, controls: Controls) -> dict[str, str]:
        """What stands against a fit with the controls as they are: {setting: sentence}."""
        trouble = controls.adapt()
        settings, problems = controls.read()
        self._runs.settings = settings
        controls.stories.show_counts(settings)
        if trouble is None:
            problems = checked(self._runs.assembly, settings) | problems
        else:  # a look at the model would wait for the network: check what can be said without it
            others = replace(settings, model_name="demo", layer_idx=0, lookback=1, stride=None)
            problems = checked(self._runs.assembly, others) | problems | {"model_name": trouble}
        if problems:
            self._estimate.value = ""
            self._say_sweep("")
        else:
            self._estimating.ask(settings)
        return problems

    def shortage(self) -> dict[str, str]:
        """{setting: sentence} where the settings as they stand need more memory than is free, else empty."""
        short = self._short
        return short[1] if short is not None and short[0] == self._runs.settings else {}

    def estimate_anew(self) -> None:
        """Estimate the same settings again: what is cached has changed."""
        if self._runs.settings is not None:
            self._estimating.ask(self._runs.settings)

    def say_why(self, labels: Sequence[str]) -> None:
        """Name the controls that keep Fit off."""
        names = ", ".join(dict.fromkeys(labels))
        self._reason.value = note(f"Fit is off until this is mended: {names}.") if names else ""

    def estimated(self, timeout: float | None = None) -> bool:
        """Wait for the estimate, at most `timeout` seconds."""
        return self._estimating.join(timeout)

    def warm_up(self) -> None:
        """Do in a thread what every fit on these data needs once, while the person looks at the settings."""
        threading.Thread(target=self._prepare, daemon=True).start()

    def _prepare(self) -> None:
        assembly = self._runs.assembly
        with suppress(Exception), listening(self._runs.note_of_data):  # an error is said when Fit meets it
            pipeline.prepare(assembly, self._runs.settings, memory=self._runs.memory)
            if assembly.surface is not None:
                brain.flat_mapper(assembly.surface)

    def _show_estimate(self, settings: Settings) -> None:
        short: dict[str, str] = {}
        try:
            found = pipeline.estimate(self._runs.assembly, settings, memory=self._runs.memory)
            if found.problem and not self._runs.running:  # a run's own memory is free again after it
                if self._runs.inputs.forget():
                    found = pipeline.estimate(self._runs.assembly, settings, memory=self._runs.memory)
                if found.problem:
                    short = shortage_of(self._runs, settings, found)
            self._estimate.value = f"<div>This fit: {escape(str(found))}.</div>"
            self._say_sweep(sweep_needs(settings, found))
        except Exception as error:  # noqa: BLE001 - an old estimate must not stand there as if it were of these
            self._estimate.value = note(f"No estimate: {shorten(str(error) or type(error).__name__, 200)}")
            self._say_sweep("")
        self._short = (settings, short) if short else None
        self._on_estimate()
        if short:
            again = threading.Timer(LOOK_AGAIN_SECONDS, self._look_again, [settings])
            again.daemon = True
            again.start()

    def _look_again(self, settings: Settings) -> None:
        """Estimate once more while the same settings wait for memory, and the panel is shown."""
        if self.comm is not None and self._runs.settings == settings and not self._runs.running:
            self._estimating.ask(settings)


def checked(assembly: Assembly, settings: Settings) -> Mapping[str, str]:
    """`pipeline.check`, and where it fails itself, a sentence at the setting without which it does not."""
    try:
        return pipeline.check(assembly, settings)
    except Exception as error:  # noqa: BLE001 - the panel must say it, whatever it is
        what = shorten(f"{type(error).__name__}: {error}", 160)
        return {culprit(assembly, settings): f"This cannot be checked ({what}); choose another value."}


def culprit(assembly: Assembly, settings: Settings) -> str:
    """The setting whose default would let the check pass; "settings" where there is no single one."""
    default = Settings()
    for name in (field.name for field in fields(Settings)):
        with suppress(Exception):
            pipeline.check(assembly, replace(settings, **{name: getattr(default, name)}))
            return name
    return "settings"


def shortage_of(runs: Runs, settings: Settings, found: Estimate) -> dict[str, str]:
    """{setting: sentence} for a run that does not fit into memory: at the model where its weights are too many."""
    largest = max(found.bytes, key=found.bytes.__getitem__)
    sentence = f"{found.problem}"
    spaces = {settings.modality, *settings.joined_with}
    if settings.model_name != "demo" and "language_model" in spaces:
        smaller = replace(settings, model_name="demo", layer_idx=0)
        if pipeline.estimate(runs.assembly, smaller, memory=runs.memory).fits:
            sentence += " With the bundled model, demo, it would fit."
    return {"model_name" if largest == "features" else "stories": sentence}


def sweep_needs(settings: Settings, found: Estimate) -> str:
    """What a sweep over all layers takes at most, from the estimate of one fit."""
    if "language_model" not in (settings.modality, *settings.joined_with):
        return NO_SWEEP
    n_layers = features.model_info(settings.model_name).n_layers + 1
    often = {"ridge", "scores"}  # features and responses are read once for all layers
    seconds = {stage: s * (n_layers if stage in often else 1) for stage, s in found.seconds.items()}
    return f"A sweep: {n_layers} layers, {replace(found, seconds=seconds)}."
