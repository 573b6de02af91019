"""One control of the panel: the row that describes it, its widget, its note and its problem, and numbers as text."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ipywidgets as widgets
import numpy as np

from .._validation import shorten
from ..assembly import Assembly
from ..settings import Settings, SettingsError
from .theme import labelled, note, problem

Condition = Callable[[Settings, Assembly], bool]
Notify = Callable[[], None]
WHOLE_NUMBER = re.compile(r"[+-]?[0-9]{1,18}")
MOST_DELAYS = 100  # in a fit; the response to a word is over within 20 TRs or so
MOST_ALPHAS = 500


@dataclass(frozen=True)
class Kind:
    """How a control shows a setting.

    Attributes
    ----------
    widget : class of the widget
    options : arguments of the widget
    parse : function of the widget's value and the label; returns the setting, or raises a ValueError with a sentence
    write : function of the setting; returns the widget's value
    """

    widget: type[widgets.Widget]
    options: Mapping[str, Any]
    parse: Callable[[Any, str], Any] = lambda value, label: value
    write: Callable[[Any], Any] = lambda value: value


@dataclass(frozen=True)
class Control:
    """One row of the table of controls.

    Attributes
    ----------
    setting : the name of the setting
    css : the widget gets the class `enb-<css>`, its note `enb-<css>-note`, its problem `enb-<css>-problem`
    label : what the user reads
    kind : a key of `KINDS`
    options : further arguments of the widget
    enabled : whether the setting has an effect, given all settings and the data; otherwise it is greyed out
    shown : whether the control is visible, likewise
    """

    setting: str
    css: str
    label: str
    kind: str
    options: Mapping[str, Any] | None = None
    enabled: Condition = lambda settings, assembly: True
    shown: Condition = lambda settings, assembly: True


class Entry(widgets.VBox):
    """Widgets for one setting or several, with a line that says what is wrong with their values.

    A subclass has `read() -> {setting: value}`, `show(settings)` and `watch(on_change)`.

    Attributes
    ----------
    labels : {setting: its label on the page}
    """

    labels: Mapping[str, str]

    def __init__(self, css: str, children: Sequence[Any], below: Sequence[Any] = ()) -> None:
        self._problem = _hidden_line(f"enb-{css}-problem")
        super().__init__([*children, self._problem, *below])

    def enabled(self, settings: Settings, assembly: Assembly) -> bool:
        """Whether the values have an effect; if not, a wrong value is no problem."""
        return True

    def adapt(self, settings: Settings, assembly: Assembly) -> None:
        """Grey out what has no effect, and update notes."""

    def show_problem(self, sentence: str | None) -> None:
        """Show what is wrong, or nothing."""
        _write_line(self._problem, problem(sentence))


class Field(Entry):
    """The control of one row."""

    def __init__(self, row: Control, tooltip: str) -> None:
        self.row, self.labels = row, {row.setting: row.label}
        self._kind = KINDS[row.kind]
        options = {**self._kind.options, **(row.options or {})}
        self.control = labelled(self._kind.widget, row.label, tooltip, f"enb-{row.css}", **options)
        self._note = _hidden_line(f"enb-{row.css}-note")
        super().__init__(row.css, [self.control, self._note])

    def read(self) -> dict[str, Any]:
        """{setting: value}; raises SettingsError if the widget's text is not a value."""
        try:
            return {self.row.setting: self._kind.parse(self.control.value, self.row.label)}
        except ValueError as error:
            raise SettingsError(self.row.setting, str(error)) from None

    def show(self, settings: Settings) -> None:
        """Set the widget to the setting."""
        self.control.value = self._kind.write(getattr(settings, self.row.setting))

    def watch(self, on_change: Notify) -> None:
        """Call `on_change` when the value changes."""
        self.control.observe(lambda _: on_change(), "value")

    def enabled(self, settings: Settings, assembly: Assembly) -> bool:
        """Whether the setting has an effect."""
        return self.row.enabled(settings, assembly)

    def adapt(self, settings: Settings, assembly: Assembly) -> None:
        """Grey the control out, or hide it, as its row says."""
        self.control.disabled = not self.enabled(settings, assembly)
        self.layout.display = None if self.row.shown(settings, assembly) else "none"

    def show_note(self, text: str) -> None:
        """Show an explanation under the control."""
        _write_line(self._note, note(text))


def _hidden_line(css_class: str) -> widgets.HTML:
    line = widgets.HTML().add_class(css_class)
    line.layout.display = "none"
    return line


def _write_line(line: widgets.HTML, text: str) -> None:
    if line.value != text:
        line.value = text
        line.layout.display = None if text else "none"


class Section(widgets.VBox):
    """Controls under a button that folds them away; Tab reaches the button, Space presses it."""

    def __init__(self, title: str, children: Iterable[widgets.Widget], css: str) -> None:
        self.button = widgets.ToggleButton(
            description=title, tooltip=f"Show or hide: {title}", layout={"width": "auto"}
        ).add_class(f"enb-{css}-section")
        self.body = widgets.VBox(list(children)).add_class("enb-section-body")
        super().__init__([self.button, self.body])
        self.add_class("enb-section")
        self.button.observe(lambda _: self._fold(), "value")
        self._fold()

    @property
    def unfolded(self) -> bool:
        """Whether the controls are visible."""
        return self.button.value

    def unfold(self) -> None:
        """Show the controls."""
        self.button.value = True

    def _fold(self) -> None:
        self.button.icon = "caret-down" if self.unfolded else "caret-right"
        self.body.layout.display = None if self.unfolded else "none"


# ---------------------------------------------------------------------- numbers as text


def parse_whole(typed: str, label: str) -> int:
    """A whole number, from digits alone; `label` names it in the message of the ValueError."""
    if not WHOLE_NUMBER.fullmatch(typed.strip()):
        raise ValueError(f"Expected {label} as a whole number in digits, such as 16, got {_quoted(typed)}.")
    return int(typed)


def parse_number(typed: str, label: str) -> float:
    """A finite number with a decimal point or an exponent; `label` names it in the message of the ValueError."""
    value = _finite(typed)
    if value is None:
        raise ValueError(f"Expected {label} as a number, such as 0.5 or 1e-8, got {_quoted(typed)}.")
    return value


def write_number(value: float) -> str:
    """A number as text that `parse_number` reads back exactly."""
    short = f"{value:g}"
    return short if float(short) == value else repr(float(value))


def parse_delays(typed: str, label: str = "delays") -> tuple[int, ...]:
    """Whole numbers of TRs from "1, 2, 3, 4" or "1-4".

    Raises
    ------
    ValueError
        Anything else; a range that runs backwards; too many delays.
    """
    ranges = []
    for part in _parts(typed):
        ends = [part] if WHOLE_NUMBER.fullmatch(part) else part.split("-", 1)
        if not all(map(WHOLE_NUMBER.fullmatch, ends)) or int(ends[0]) > int(ends[-1]):
            example = "such as 1, 2, 3, 4 or 1-4, smaller numbers first"
            raise ValueError(f"Expected {label} as whole numbers of TRs, {example}, got {_quoted(part)}.")
        ranges.append(range(int(ends[0]), int(ends[-1]) + 1))
    count = sum(map(len, ranges))
    if count > MOST_DELAYS:  # before they are made: "1-20000000" would fill the memory
        text = f"Expected at most {MOST_DELAYS} delays, got {count:,}"
        raise ValueError(f"{text}; the BOLD response ends within 20 s.")
    return tuple(delay for part in ranges for delay in part)


def parse_alphas(typed: str, label: str = "alphas") -> tuple[float, ...]:
    """Alphas from "1e2 to 1e6 in 7 steps" (evenly on a log scale), or from a list of numbers.

    Raises
    ------
    ValueError
        Anything else; too many alphas.
    """
    grid = re.fullmatch(r"\s*(\S+)\s+to\s+(\S+)\s+in\s+([0-9]+)(?:\s+steps?)?\s*", typed)
    parts = [grid[1], grid[2]] if grid else _parts(typed)
    values = tuple(_finite(part) for part in parts)
    if None in values:
        wrong = parts[values.index(None)]
        example = "'1e2 to 1e6 in 7 steps' or '100, 1000'"
        raise ValueError(f"Expected {label} such as {example}, got {_quoted(wrong)}.")
    count = grid[3][:9] if grid else len(values)
    if int(count) > MOST_ALPHAS:
        raise ValueError(f"Expected at most {MOST_ALPHAS} alphas, got {count}; 10 or 20 are enough.")
    if grid is None:
        return values
    low, high, steps = *values, int(count)
    if min(low, high) <= 0 or steps < (1 if low == high else 2):
        raise ValueError(f"Expected {label} above 0 and at least two steps, got {_quoted(typed)}.")
    return tuple(float(alpha) for alpha in np.logspace(np.log10(low), np.log10(high), steps))


def write_alphas(alphas: Sequence[float]) -> str:
    """Alphas as text that `parse_alphas` reads back exactly."""
    alphas = tuple(alphas)
    if len(alphas) > 2 and min(alphas) > 0:
        short = f"{alphas[0]:.4g} to {alphas[-1]:.4g} in {len(alphas)} steps"
        if parse_alphas(short) == alphas:
            return short
    return ", ".join(repr(float(alpha)) for alpha in alphas)


def _parts(typed: str) -> list[str]:
    """What is between commas, semicolons and spaces."""
    return list(filter(None, re.split(r"[,;\s]+", typed.strip())))


def _finite(typed: str) -> float | None:
    """The number that a text holds, or None."""
    try:
        value = float(typed)
    except ValueError:
        return None
    return value if math.isfinite(value) and "_" not in typed else None


def _quoted(typed: str) -> str:
    return repr(shorten(typed.strip(), 40)) if typed.strip() else "nothing"


# ---------------------------------------------------------------------- kinds


def parse_path(typed: str, label: str) -> str:
    """A path that the file system accepts, with ~ written out, whether or not it exists."""
    try:
        path = Path(typed).expanduser()
        path.is_file()
    except (OSError, ValueError, RuntimeError) as error:  # too long; a null character; an unknown user
        reason = getattr(error, "strerror", None) or error
        raise ValueError(f"Expected a path for {label}, got {_quoted(typed)} ({reason}).") from None
    return str(path)


def _typed(parse: Callable[[str, str], Any], write: Callable[[Any], str] = str) -> Kind:
    """A text box. A browser's number box would make 1 of "1e3" while it still shows "1e3"."""
    return Kind(widgets.Text, {"continuous_update": False}, parse, write)


def _optional(parse: Callable[[str, str], Any], write: Callable[[Any], str] = str) -> Kind:
    """A text box that may stay empty, for a setting that may be None."""

    def parse_or_none(typed: str, label: str) -> Any:
        return parse(typed.strip(), label) if typed.strip() else None

    return _typed(parse_or_none, lambda value: "" if value is None else write(value))


KINDS = {
    "whole": _typed(parse_whole),
    "whole or empty": _optional(parse_whole),
    "number": _typed(parse_number, write_number),
    "number or empty": _optional(parse_number, write_number),
    "delays": _typed(parse_delays, lambda delays: ", ".join(map(str, delays))),
    "alphas or empty": _optional(parse_alphas, write_alphas),
    "path or empty": _optional(parse_path),
    "choice": Kind(widgets.Dropdown, {}),
    "choice or empty": Kind(widgets.Dropdown, {}, lambda value, _: value or None, lambda value: value or ""),
    "tick": Kind(widgets.Checkbox, {}),
    "layer": Kind(widgets.IntSlider, {"min": 0, "max": 1, "continuous_update": False}),
    "model": Kind(
        widgets.Combobox, {"ensure_option": False, "continuous_update": False}, lambda typed, _: typed.strip()
    ),
}
