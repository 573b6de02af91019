"""Which data, which stories: the panel opens a data set by itself, or takes what the code gave it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType
from typing import Any

import ipywidgets as widgets

from .. import datasets
from .._progress import Progress
from .._validation import shorten
from ..assembly import Assembly
from ..pipeline import split_stories
from ..settings import Settings, SettingsError
from .fields import Field, dropdown, tick
from .theme import WIDE, note, problem

GIVEN = "as given in the code"
SOURCES = {"the built-in demo": "demo", "a file": "file", "a folder (ds003020, Alice)": "folder"}
ROWS = 6  # of a list of stories that are seen at once


class DataControls(widgets.VBox):
    """Choose a data set and open it; `on_open(source, options)` is called with what `load_assembly` takes."""

    def __init__(self, assembly: Assembly, on_open: Callable[[str, dict[str, Any]], None]) -> None:
        self._on_open = on_open
        self._default = assembly
        self.source = widgets.Dropdown(
            options={GIVEN: "given", **SOURCES},
            description="data",
            style=WIDE,
            tooltip="Where words and brain responses come from. Open loads what is chosen here.",
            layout={"width": "auto"},
        ).add_class("enb-source")
        self.path = widgets.Text(
            description="path",
            style=WIDE,
            placeholder="file or folder",
            tooltip="A LITcoder .pkl or an own .h5 file; or the folder of ds003020 or of Brennan's Alice data.",
            continuous_update=False,
            layout={"width": "auto"},
        ).add_class("enb-path")
        self.subject = widgets.Text(
            description="subject",
            style=WIDE,
            placeholder="such as UTS03",
            tooltip="Whose responses, where the folder has several people's.",
            continuous_update=False,
            layout={"width": "auto"},
        ).add_class("enb-subject")
        self.open_button = widgets.Button(
            description="Open",
            icon="folder-open",
            tooltip="Load the data chosen above",
            layout={"width": "105px"},
        ).add_class("enb-open")
        self._note = widgets.HTML().add_class("enb-data-note")
        self._problem = widgets.HTML().add_class("enb-data-problem")
        super().__init__([self.source, self.path, self.subject, self.open_button, self._note, self._problem])
        self.source.observe(lambda _: self._shown_for_source(), "value")
        self.open_button.on_click(lambda _: self._opened())
        self._shown_for_source()

    def _shown_for_source(self) -> None:
        self.path.layout.display = None if self.source.value in ("file", "folder") else "none"
        self.subject.layout.display = None if self.source.value == "folder" else "none"
        self.open_button.disabled = self.source.value == "given"

    def _opened(self) -> None:
        """Hand over what is to be opened, or say what is missing."""
        kind, subject = self.source.value, self.subject.value.strip()
        try:
            source = "demo" if kind == "demo" else _existing(self.path.value.strip(), kind)
        except ValueError as error:
            self.show_problem(str(error))
            return
        self.show_problem(None)
        self._on_open(source, {"subject": subject} if kind == "folder" and subject else {})

    def show(self, assembly: Assembly) -> None:
        """Say which data are open."""
        kind = "simulated BOLD" if assembly.simulated else "BOLD"
        voxels = f"{kind} of {assembly.n_voxels:,} voxels"
        text = f"{assembly.subject}: {len(assembly)} stories, {voxels}, TR {assembly.tr:g} s"
        self._note.value = note(text)
        self.show_problem(None)

    def show_problem(self, sentence: str | None) -> None:
        """Write what is wrong beneath the controls, or clear it."""
        self._problem.value = problem(sentence)

    def give_back(self) -> None:
        """Enable Open again, after what was opened is there or is not."""
        self._shown_for_source()


def _existing(path: str, kind: str) -> str:
    """The path of a "file" or "folder" that is there; a ValueError says what is wrong with it."""
    if not path:
        raise ValueError(f"Expected the path of a {kind}, got none; type it above.")
    try:
        found = Path(path).expanduser()
        there = found.is_file() if kind == "file" else found.is_dir()
    except (OSError, RuntimeError) as error:  # too long for a path; a home of nobody
        reason = getattr(error, "strerror", None) or error
        raise ValueError(f"{shorten(path)!r} cannot be a path here ({reason}); check it.") from None
    if not there:
        raise ValueError(
            f"There is no {kind} at {shorten(path, 200)!r}; check the path, which starts at {Path.cwd()}."
        )
    return str(found)


def open_data(source: str, options: dict[str, Any], *, progress: Callable[[Progress], None]) -> Assembly:
    """Load a data set; `progress` is called once, before that."""
    progress(Progress("features", 0, 1, 0.0, f"opening {source}"))
    return datasets.load_assembly(source, **options)


class StoriesField(widgets.VBox):
    """Stories to fit on and stories to test on."""

    settings = ("stories", "test_stories")
    labels = MappingProxyType({"stories": "stories", "test_stories": "test on"})

    def __init__(self, assembly: Assembly) -> None:
        self.train = self._list(
            self.labels["stories"],
            "stories",
            "Stories to use; those chosen for testing are left out of the fit.",
        )
        self.test = self._list(
            self.labels["test_stories"],
            "test-stories",
            "Held out of the fit and predicted; scores are of these.",
        )
        self._problem = widgets.HTML().add_class("enb-stories-problem")
        self._note = widgets.HTML().add_class("enb-stories-note")
        self._unknown: dict[str, tuple[str, ...]] = {}
        super().__init__([self.train, self.test, self._note, self._problem])
        self.use(assembly)

    @staticmethod
    def _list(label: str, css_class: str, tooltip: str) -> widgets.SelectMultiple:
        tooltip += " Ctrl with a click, or Shift with an arrow key, chooses more than one."
        return widgets.SelectMultiple(
            description=label, tooltip=tooltip, style=WIDE, layout={"width": "auto"}
        ).add_class(f"enb-{css_class}")

    def use(self, assembly: Assembly) -> None:
        """Offer the stories of other data, all of them chosen."""
        self._assembly = assembly
        self._unknown = {}
        for box, chosen in ((self.train, tuple(assembly.stories)), (self.test, assembly.test_stories)):
            box.options = tuple(assembly.stories)
            box.rows = min(ROWS, max(2, len(assembly.stories)))
            box.value = chosen

    def show(self, settings: Settings) -> None:
        """Choose what the settings say; names that the data lack are kept and said until others are chosen."""
        known = self._assembly.stories
        self._unknown = {}
        for box, name, default in (
            (self.train, "stories", tuple(known)),
            (self.test, "test_stories", self._assembly.test_stories),
        ):
            asked = getattr(settings, name)
            chosen = default if asked is None else asked
            box.value = tuple(story for story in known if story in chosen)
            if any(story not in known for story in chosen):
                self._unknown[name] = tuple(chosen)

    def read(self) -> dict[str, Any]:
        """{"stories": ..., "test_stories": ...}, None where it is the data's own choice."""
        train, test = tuple(self.train.value), tuple(self.test.value)
        found = {
            "stories": None if train == tuple(self._assembly.stories) else train,
            "test_stories": None if test == self._assembly.test_stories else test,
        }
        if not train:
            raise SettingsError("stories", "Expected at least one story to use, got none; choose some.")
        return found | self._unknown

    def watch(self, on_change: Callable[[], None]) -> None:
        """Call `on_change` whenever a choice changes."""

        def changed(name: str) -> None:
            self._unknown.pop(name, None)
            on_change()

        self.train.observe(lambda _: changed("stories"), "value")
        self.test.observe(lambda _: changed("test_stories"), "value")

    def show_counts(self, settings: Settings) -> None:
        """Say how many stories each part has."""
        try:
            split = split_stories(self._assembly, settings)
        except SettingsError:
            self._note.value = ""
            return
        held = f"{len(split.test)} for testing" if split.test else "every story is held out in turn"
        self._note.value = note(f"{len(split.train)} stories for fitting, {held}")

    def show_problem(self, sentence: str | None) -> None:
        """Write what is wrong beneath the lists, or clear it."""
        self._problem.value = problem(sentence)


def scheme_field() -> Field:
    """Which rows are held out."""
    return dropdown(
        "use_train_test_split",
        "scheme",
        "scores from",
        {"the test stories": True, "every story in turn (nested cross-validation)": False},
        "Fit on some stories and score others; or fit several times, so that every story is scored once.",
    )


def stored_contexts_field() -> Field:
    """Whether windows that came with the data are used."""
    return tick(
        "use_stored_contexts",
        "stored-contexts",
        "windows of the data",
        "Let the model read the windows that came with the data instead of making them; lookback then has no effect.",
    )
