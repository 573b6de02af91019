"""What a control is here: a labelled widget, the setting it stands for, and what is wrong with it beneath."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import ipywidgets as widgets
import numpy as np

from ..settings import Settings, SettingsError
from .theme import WIDE, note, problem


class Field(widgets.VBox):
    """One control with its note and its problem written beneath it.

    Parameters
    ----------
    control : widget with a `value`
    css_class : str
        The control gets `enb-<css_class>`, its note and its problem that with `-note` and `-problem`.
    setting : str
        The setting it stands for.
    parse : function from the widget's value to the setting's; raises ValueError with a sentence
    write : function from the setting's value to the widget's
    """

    def __init__(
        self,
        control: widgets.Widget,
        css_class: str,
        setting: str,
        *,
        parse: Callable[[Any], Any] = lambda value: value,
        write: Callable[[Any], Any] = lambda value: value,
    ) -> None:
        self.control, self.setting = control, setting
        self._parse, self._write = parse, write
        control.add_class(f"enb-{css_class}")
        control.layout.width = "auto"
        self._note = _hidden_html(f"enb-{css_class}-note")
        self._problem = _hidden_html(f"enb-{css_class}-problem")
        super().__init__([control, self._note, self._problem])

    @property
    def settings(self) -> tuple[str, ...]:
        """The settings that this field stands for, whose problems are shown at it."""
        return (self.setting,)

    @property
    def labels(self) -> dict[str, str]:
        """{setting: what the control is called on the page}."""
        return {self.setting: self.control.description}

    def read(self) -> dict[str, Any]:
        """{setting: value}; raises SettingsError where the widget holds no such value."""
        try:
            return {self.setting: self._parse(self.control.value)}
        except ValueError as error:
            raise SettingsError(self.setting, str(error)) from None

    def show(self, settings: Settings) -> None:
        """Put the control to what the settings say."""
        self.control.value = self._write(getattr(settings, self.setting))

    def watch(self, on_change: Callable[[], None]) -> None:
        """Call `on_change` whenever the value changes."""
        self.control.observe(lambda _: on_change(), "value")

    def show_note(self, text: str) -> None:
        """Write an explanation beneath the control."""
        _write_html(self._note, note(text))

    def show_problem(self, sentence: str | None) -> None:
        """Write what is wrong beneath the control, or clear it."""
        _write_html(self._problem, problem(sentence))

    @property
    def on(self) -> bool:
        """Whether the control has an effect."""
        return not self.control.disabled

    def switch(self, on: bool) -> None:
        """Grey the control out where it has no effect."""
        self.control.disabled = not on


def _hidden_html(css_class: str) -> widgets.HTML:
    html = widgets.HTML().add_class(css_class)
    html.layout.display = "none"
    return html


def _write_html(html: widgets.HTML, text: str) -> None:
    if html.value != text:
        html.value = text
        html.layout.display = None if text else "none"


class Section(widgets.VBox):
    """Controls under a button that folds them away; the button is reached with Tab and pressed with Space."""

    def __init__(
        self, title: str, children: Sequence[widgets.Widget], css_class: str, *, unfolded: bool = False
    ) -> None:
        self._button = widgets.ToggleButton(
            value=unfolded, description=title, tooltip=f"Show or hide: {title}", layout={"width": "auto"}
        ).add_class(f"enb-{css_class}-section")
        self.body = widgets.VBox(list(children)).add_class("enb-section-body")
        super().__init__([self._button, self.body])
        self.add_class("enb-section")
        self._button.observe(lambda _: self._fold(), "value")
        self._fold()

    @property
    def unfolded(self) -> bool:
        """Whether the controls are to be seen."""
        return self._button.value

    def unfold(self) -> None:
        """Show the controls, as when one of them has a problem."""
        self._button.value = True

    def watch(self, on_change: Callable[[], None]) -> None:
        """Call `on_change` when the section is folded or unfolded."""
        self._button.observe(lambda _: on_change(), "value")

    def _fold(self) -> None:
        self._button.icon = "caret-down" if self.unfolded else "caret-right"
        self.body.layout.display = None if self.unfolded else "none"


# ---------------------------------------------------------------------- makers of common fields


def dropdown(setting: str, css_class: str, label: str, options: Any, tooltip: str) -> Field:
    """A choice among few: `options` are values, or a mapping of what is read to values."""
    control = widgets.Dropdown(options=options, description=label, tooltip=tooltip, style=WIDE)
    return Field(control, css_class, setting)


def whole_number(setting: str, css_class: str, label: str, tooltip: str) -> Field:
    """A whole number; whether it is in range is for `settings.check` to say, in words.

    A box of text, since a browser's box of numbers makes 1 of "1e3" while it goes on showing "1e3".
    """
    return text(setting, css_class, label, tooltip, parse=lambda typed: parse_whole(typed, label), write=str)


def number(setting: str, css_class: str, label: str, tooltip: str) -> Field:
    """A number, in a box of text as `whole_number`."""
    return text(
        setting, css_class, label, tooltip, parse=lambda typed: parse_number(typed, label), write=write_number
    )


def tick(setting: str, css_class: str, label: str, tooltip: str) -> Field:
    """Yes or no."""
    control = widgets.Checkbox(description=label, tooltip=tooltip, style=WIDE)
    return Field(control, css_class, setting)


def text(setting: str, css_class: str, label: str, tooltip: str, **options: Any) -> Field:
    """A line of text; `options` are those of `Field`, and `placeholder`."""
    control = widgets.Text(
        description=label,
        tooltip=tooltip,
        style=WIDE,
        continuous_update=False,
        placeholder=options.pop("placeholder", ""),
    )
    return Field(control, css_class, setting, **options)


# ---------------------------------------------------------------------- numbers as text

WHOLE = re.compile(r"[+-]?[0-9]{1,18}")
MOST_DELAYS = 100  # in a fit; the response to a word is over within 20 TRs or so
MOST_ALPHAS = 500


def parse_whole(typed: str, what: str) -> int:
    """A whole number, from digits alone; `what` names it in the sentence of the ValueError."""
    if not WHOLE.fullmatch(typed.strip()):
        got = f"{typed.strip()[:40]!r}" if typed.strip() else "nothing"
        raise ValueError(f"Expected {what} as a whole number in digits, such as 16, got {got}.")
    return int(typed)


def parse_number(typed: str, what: str) -> float:
    """A finite number with a decimal point or an exponent; `what` names it in the sentence of the ValueError."""
    try:
        value = float(typed)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or "_" in typed:
        got = f"{typed.strip()[:40]!r}" if typed.strip() else "nothing"
        raise ValueError(f"Expected {what} as a number, such as 0.5 or 1e-8, got {got}.")
    return value


def write_number(value: float) -> str:
    """A number as it is typed, so that `parse_number` gives the very same."""
    short = f"{value:g}"
    return short if float(short) == value else repr(float(value))


def parse_delays(typed: str) -> tuple[int, ...]:
    """Whole numbers of TRs from "1, 2, 3, 4" or "1-4".

    Raises
    ------
    ValueError
        Something else, which is quoted; a span that runs backwards; more delays than make sense.
    """
    spans = [_span(part, typed) for part in filter(None, re.split(r"[,;\s]+", typed.strip()))]
    count = sum(last - first + 1 for first, last in spans)
    if count > MOST_DELAYS:  # before they are made: "1-20000000" would fill the memory
        raise ValueError(
            f"Expected at most {MOST_DELAYS} delays, got {count:,} in {_quoted(typed)}; blood flow follows within 20 s."
        )
    return tuple(delay for first, last in spans for delay in range(first, last + 1))


def _span(part: str, typed: str) -> tuple[int, int]:
    """First and last delay of a part such as "3" or "1-4"."""
    if WHOLE.fullmatch(part):
        return int(part), int(part)
    ends = re.fullmatch(r"([0-9]{1,18})-([0-9]{1,18})", part)
    if ends is None:
        raise ValueError(
            f"Expected delays as whole numbers of TRs, such as 1, 2, 3, 4 or 1-4, got {_quoted(part)} in "
            f"{_quoted(typed)}."
        )
    first, last = int(ends[1]), int(ends[2])
    if first > last:
        raise ValueError(
            f"Expected delays from the smaller to the larger, got {part!r} in {_quoted(typed)}; write {last}-{first}."
        )
    return first, last


def _quoted(typed: str) -> str:
    return repr(typed if len(typed) <= 60 else f"{typed[:59]}\u2026")


def write_delays(delays: Sequence[int]) -> str:
    """Delays as they are typed."""
    return ", ".join(str(delay) for delay in delays)


def parse_alphas(typed: str) -> tuple[float, ...]:
    """Alphas from "1e2 to 1e6 in 7 steps" (evenly on a log scale), or a list of numbers.

    Raises
    ------
    ValueError
        Something else, which is quoted; more alphas than make sense.
    """
    if grid := re.fullmatch(r"\s*(\S+)\s+to\s+(\S+)\s+in\s+([0-9]+)(?:\s+steps?)?\s*", typed):
        low, high = (_parse_alpha(end, typed) for end in (grid[1], grid[2]))
        _refuse_many(grid[3] if len(grid[3]) > 9 else int(grid[3]), typed)
        steps = int(grid[3])
        if low > 0 and high > 0 and (steps > 1 or (steps == 1 and low == high)):
            return tuple(float(alpha) for alpha in np.logspace(np.log10(low), np.log10(high), steps))
        raise ValueError(f"Expected alphas above 0 and at least two steps, got {_quoted(typed)}.")
    parts = list(filter(None, re.split(r"[,;\s]+", typed.strip())))
    _refuse_many(len(parts), typed)
    return tuple(_parse_alpha(part, typed) for part in parts)


def _refuse_many(count: int | str, typed: str) -> None:
    if isinstance(count, str) or count > MOST_ALPHAS:
        raise ValueError(
            f"Expected at most {MOST_ALPHAS} alphas, got {count} in {_quoted(typed)}; 10 or 20 find the best one."
        )


def _parse_alpha(part: str, typed: str) -> float:
    try:
        value = float(part)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(
            f"Expected alphas such as '1e2 to 1e6 in 7 steps' or '100, 1000', got {_quoted(part)} in {_quoted(typed)}."
        )
    return value


def write_alphas(alphas: Sequence[float]) -> str:
    """Alphas as they are typed, so that `parse_alphas` gives the very same numbers."""
    alphas = tuple(alphas)
    if len(alphas) > 2 and min(alphas) > 0:
        short = f"{alphas[0]:.4g} to {alphas[-1]:.4g} in {len(alphas)} steps"
        if parse_alphas(short) == alphas:
            return short
    return ", ".join(repr(float(alpha)) for alpha in alphas)
