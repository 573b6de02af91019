"""The panel's controls: widgets in, `Settings` out.

Each control has a label, a tooltip, a class that tests select it by, and a line beneath it for what is wrong
with its value. The four that a first hour needs stand in sight, the others are folded away under plain names.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import ipywidgets as widgets

from ..assembly import Assembly
from ..settings import Settings, SettingsError
from .data_controls import DataControls, StoriesField
from .fields import Section
from .fit_controls import FitControls
from .model_controls import ModelControls
from .model_lookup import ModelLookup
from .time_controls import TimeControls, TrimmingControls


class Controls(widgets.VBox):
    """All controls of the panel, and the `Settings` they stand for.

    Parameters
    ----------
    settings : Settings, to start with
    on_change : called when a control's value changes
    on_open : called with what `load_assembly` takes when other data are to be opened
    """

    def __init__(
        self,
        assembly: Assembly,
        settings: Settings,
        on_change: Callable[[], None],
        on_open: Callable[[str, dict[str, Any]], None],
        lookup: ModelLookup,
    ) -> None:
        self._base = settings
        self._assembly = assembly
        self._on_change = on_change
        self._showing = False
        self.data = DataControls(assembly, on_open)
        self.stories = StoriesField(assembly)
        self.models = ModelControls(lookup)
        self.trimming = TrimmingControls()
        self.time = TimeControls()
        self.fit = FitControls()
        self.sections = {
            "data": Section("Data and stories", [self.data, self.stories], "data"),
            "features": Section("More about features", self.models.more, "features"),
            "time": Section("Time: downsampling and delays", self.time.fields, "time"),
            "fit": Section("Fit: folds and alphas", self.fit.fit_fields, "fit"),
            "test": Section("Significance", self.fit.test_fields, "test"),
        }
        self.fields: tuple[Any, ...] = (
            self.stories,
            *self.models.main,
            *self.models.more,
            self.trimming,
            *self.time.fields,
            *self.fit.fit_fields,
            *self.fit.test_fields,
        )
        self._field_of = {name: field for field in self.fields for name in field.settings}
        first, *others = self.sections.values()
        super().__init__([first, *self.models.main, self.trimming, *others])
        self.data.show(assembly)
        self.trimming.use(assembly)
        self.show(settings)
        for field in self.fields:
            field.watch(self._changed)

    @property
    def model(self) -> Any:
        """The field of the model's name."""
        return self.models.model

    @property
    def layer(self) -> Any:
        """The field of the layer."""
        return self.models.layer

    def show(self, settings: Settings) -> None:
        """Put all controls to what the settings say."""
        self._base = settings
        self._showing = True
        slider = self.layer.control
        slider.max = max(slider.max, settings.layer_idx, 1)
        for field in self.fields:
            field.show(settings)
        self._showing = False
        self._changed()

    def use(self, assembly: Assembly) -> None:
        """Offer the stories of other data, and forget the choice among the last ones'."""
        self._assembly = assembly
        self._base = replace(self._base, stories=None, test_stories=None)
        self._showing = True
        self.stories.use(assembly)
        self._showing = False
        self.data.show(assembly)
        self.trimming.use(assembly)
        self._changed()

    def _changed(self) -> None:
        if not self._showing:
            self._on_change()

    def adapt(self) -> str | None:
        """Let ranges, notes and greyed-out controls follow the values; a problem of the model, or None."""
        has_contexts = any(story.contexts for story in self._assembly.stories.values())
        trouble = self.models.adapt(has_contexts=has_contexts)
        self.time.adapt(self._assembly.tr)
        self.fit.adapt()
        return trouble

    def read(self) -> tuple[Settings, dict[str, str]]:
        """The settings, and {setting: sentence} for the controls that hold no value; these keep the last one's."""
        values: dict[str, Any] = {}
        problems: dict[str, str] = {}
        for field in self.fields:
            try:
                values |= field.read()
            except SettingsError as error:
                if getattr(field, "on", True):  # what is greyed out has no effect, and cannot be mended
                    problems[error.field] = str(error)
        return replace(self._base, **values), problems

    @property
    def settings(self) -> Settings:
        """The settings as they stand; raises SettingsError where a control holds no value."""
        settings, problems = self.read()
        for name, sentence in problems.items():
            raise SettingsError(name, sentence)
        return settings

    def show_problems(self, problems: dict[str, str]) -> list[str]:
        """Write each problem beside its control, unfolding its section; returns those without a control."""
        for field in self.fields:
            field.show_problem(
                " ".join(problems[name] for name in field.settings if name in problems) or None
            )
        for section in self.sections.values():
            if any(self._field_of.get(name) in section.body.children for name in problems):
                section.unfold()
        return [sentence for name, sentence in problems.items() if name not in self._field_of]

    def label_of(self, setting: str) -> str:
        """What a setting's control is called on the page."""
        field = self._field_of.get(setting)
        return field.labels[setting] if field is not None else setting.replace("_", " ")
