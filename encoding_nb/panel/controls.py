"""The panel's controls: a table of rows, the widgets made from it, and the `Settings` that they show.

Each control has a label, a tooltip, a CSS class by which tests select it, and a line for what is wrong with its value.
The controls that a beginner needs are visible, the others are folded away in sections.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import ipywidgets as widgets

from .. import features, ridge
from .._validation import error_text, shorten
from ..assembly import Assembly
from ..features import ModelInfo
from ..pipeline import split_stories
from ..settings import ALTERNATIVES, SIGNIFICANCE, Settings, SettingsError
from ._threads import Flag, Latest
from .fields import Condition, Control, Entry, Field, Notify, Section, parse_path
from .theme import LABEL_WIDTH, button, labelled, note, warned
from .trimming import TrimmingField

Open = Callable[[str, dict[str, Any]], None]
N_SUGGESTED = 200  # models in the drop-down list, those on this machine first; any other name can be typed
GIVEN = "as given in the code"
SOURCES = {"the built-in demo": "demo", "a file": "file", "a folder (ds003020, Alice)": "folder"}
PATH_TIP = "A LITcoder .pkl file, an .h5 file of `save_assembly`, or the folder of ds003020 or of Brennan's Alice data."
OUTER_FOLDS = ("outer_folding_type", "n_outer_folds", "outer_gap")  # see `Settings.outer_folds_of`
# settings that decide which rows are held out together, and how similar neighbouring rows are
SPLIT = {
    "use_train_test_split",
    "stories",
    "test_stories",
    "trimming",
    "high_pass",
    *OUTER_FOLDS,
    "folding_type",
}
SPLIT |= {"n_inner_folds", "chunk_length", "seed", "time_sigma"}
NO_PERMUTATIONS = "No p-values: nested cross-validation needs the shift test, which repeats the fit."
LIST_ROWS = 6  # of a list of stories that are visible at once
SPACES = {
    "language_model": ("language model", "Activations of a language model that reads the words so far."),
    "wordrate": ("word rate", "Number of words in each TR: a simple control model, alone or with others."),
    "embeddings": ("word embedding", "One vector per word, independent of its context."),
    "position": (
        "position in the story",
        "A control: the row, its logarithm, and the first 30 s. BOLD drifts too.",
    ),
    "time": ("time alone", "A control that knows nothing but time: where it scores above 0, the folds leak."),
    "extras": (
        "extras of the data",
        "A control: arrays that came with the data, such as head motion or sound power.",
    ),
}

# ---------------------------------------------------------------------- conditions


def _uses(space: str) -> Condition:
    return lambda settings, _: space in (settings.modality, *settings.joined_with)


def _chosen(setting: str, *values: Any) -> Condition:
    return lambda settings, _: getattr(settings, setting) in values


_reads = _uses("language_model")
_counts = _uses("wordrate")
_embeds = _uses("embeddings")
_filters = _chosen("downsample_method", "lanczos", "sinc")
_nested = _chosen("use_train_test_split", False)
_shifts = _chosen("significance", "shift")
_times = _uses("time")
_adds = _uses("extras")


def _chunked(settings: Settings, _: Assembly) -> bool:
    outer = settings.outer_folding_type if settings.use_train_test_split is False else None
    return any((kind or "").startswith("chunked") for kind in (settings.folding_type, outer))


def _permutes(settings: Settings, data: Assembly) -> bool:
    return settings.significance == "permutation" and not _nested(settings, data)


def _needs_model(settings: Settings, data: Assembly) -> bool:
    return _reads(settings, data) or (_embeds(settings, data) and settings.embedding is None)


def _strides(settings: Settings, data: Assembly) -> bool:
    return _reads(settings, data) and settings.context_type == "strided"


def _has_windows(settings: Settings, data: Assembly) -> bool:
    return settings.use_stored_contexts or any(story.contexts for story in data.stories.values())


def _stored(settings: Settings, data: Assembly) -> bool:
    return _reads(settings, data) and any(story.contexts for story in data.stories.values())


# ---------------------------------------------------------------------- the table


def _choices(labels: Mapping[Any, str], known: Any = None) -> dict[str, Any]:
    """Options of a drop-down list: the known values by their labels."""
    return {"options": {labels.get(value, value): value for value in (labels if known is None else known)}}


CONTEXTS = {
    "fullcontext": "a full window for every word",
    "nocontext": "grow, then start again",
    "halfcontext": "grow, then drop half",
    "strided": "strides (approximate)",
}
WEIGHTS = {"trained": "trained", "untrained": "untrained: random, from the seed"}
PROCESSING = {"raw": "as published", "litcoder": "folded and centred, as in LITcoder"}
FIRST = {"bos": "beginning of text (BOS)", "eos": "end of text (EOS)", "none": "none"}
POOLING = {True: "the word's last token", False: "the mean over the window"}
DOWNSAMPLING = {
    "lanczos": "Lanczos filter",
    "sinc": "sinc filter",
    "rect": "mean of a TR's words (rect)",
    "average": "mean of a TR's words (average)",
    "sum": "sum of a TR's words",
    "last": "the TR's last word",
}
BINS = {"centred": "words within half a TR of its time", "litcoder": "words from its time on (as LITcoder)"}
SCHEMES = {True: "the test stories", False: "all in turn: nested cross-validation"}
FOLDING = {
    "chunked": "chunks of TRs, at random",
    "chunked_contiguous": "chunks of TRs, in order",
    "chunked_trimmed": "chunks of TRs, ends not scored",
    "kfold": "contiguous parts of the recording",
    "kfold_trimmed": "contiguous parts, ends not scored",
    "timeseries": "the past predicts the future",
    "group": "whole stories",
}
HELD_OUT = {"": "whole stories, if several"} | FOLDING
CRITERIA = {True: "correlation", False: "explained variance (R2)"}
TESTS = {
    "permutation": "permutation test",
    "shift": "shift test (refits)",
    "parametric": "parametric test (assumes white noise)",
}
SIDES = {"greater": "one-sided", "two-sided": "two-sided"}
DEVICES = {"options": ("auto", "cpu", "cuda")}

# The rows below {css class of the section: its title and rows}; "main" is always visible.
ROWS = {
    "main": (
        Control("model_name", "model", "model", "model", enabled=_needs_model),
        Control("layer_idx", "layer", "layer", "layer", enabled=_reads),
        Control("lookback", "lookback", "lookback", "whole", enabled=_reads),
    ),
    "data": (Control("high_pass", "high-pass", "high-pass (s)", "number or empty", {"placeholder": "off"}),),
    "features": (
        Control("weights", "weights", "weights", "choice", _choices(WEIGHTS), _reads),
        Control("context_type", "context", "context", "choice", _choices(CONTEXTS), _reads),
        Control("stride", "stride", "stride", "whole or empty", enabled=_strides, shown=_strides),
        Control("last_token", "pooling", "pooling", "choice", _choices(POOLING), _reads),
        Control("first_token", "first-token", "first token", "choice", _choices(FIRST), _reads),
        Control("processing", "processing", "processing", "choice", _choices(PROCESSING), _reads),
        Control("embedding", "embedding", "vectors", "path or empty", enabled=_embeds, shown=_embeds),
        Control(
            "use_stored_contexts", "stored-contexts", "stored windows", "tick", {}, _stored, _has_windows
        ),
        Control("time_sigma", "time-sigma", "sigma (TR)", "number", enabled=_times, shown=_times),
        Control("delay_extras", "delay-extras", "delay extras", "tick", {}, _adds, _adds),
    ),
    "time": (
        Control("downsample_method", "downsample", "downsampling", "choice", _choices(DOWNSAMPLING)),
        Control("downsample_window", "downsample-window", "lobes", "whole", enabled=_filters),
        Control("cutoff_mult", "cutoff", "cutoff", "number", enabled=_filters),
        Control("word_rate_bins", "word-rate-bins", "word rate", "choice", _choices(BINS), _counts, _counts),
        Control("fir_delays", "delays", "delays (TR)", "delays", {"placeholder": "1, 2, 3, 4"}),
    ),
    "fit": (
        Control("use_train_test_split", "scheme", "scores from", "choice", _choices(SCHEMES)),
        Control(
            "outer_folding_type",
            "outer-folding",
            "held out",
            "choice or empty",
            _choices(HELD_OUT, ("", *ridge.FOLDING_TYPES)),
            _nested,
            _nested,
        ),
        Control("n_outer_folds", "outer-folds", "outer folds", "whole", None, _nested, _nested),
        Control(
            "outer_gap",
            "outer-gap",
            "gap (s)",
            "number or empty",
            {"placeholder": "80 at stretches, else 0"},
            _nested,
            _nested,
        ),
        Control("folding_type", "folding", "alpha folds", "choice", _choices(FOLDING, ridge.FOLDING_TYPES)),
        Control("n_inner_folds", "inner-folds", "inner folds", "whole"),
        Control("chunk_length", "chunk-length", "chunk length", "whole", enabled=_chunked),
        Control("alphas", "alphas", "alphas", "alphas or empty", {"placeholder": "the usual grid"}),
        Control("single_alpha", "single-alpha", "one for all", "tick"),
        Control("use_corr", "criterion", "chosen by", "choice", _choices(CRITERIA)),
        Control("normalpha", "normalpha", "scaled alphas", "tick"),
        Control("prediction_floor", "prediction-floor", "floor", "number"),
        Control("seed", "seed", "random seed", "whole"),
        Control("device", "device", "device", "choice", DEVICES),
    ),
    "test": (
        Control("significance", "significance", "p-values", "choice", _choices(TESTS, SIGNIFICANCE)),
        Control("n_permutations", "permutations", "permutations", "whole", enabled=_permutes),
        Control("block_trs", "block", "block (TR)", "whole or empty", enabled=_permutes),
        Control("n_shifts", "shifts", "shifts", "whole", None, _shifts, _shifts),
        Control(
            "least_shift",
            "least-shift",
            "least shift (s)",
            "number or empty",
            {"placeholder": "from the BOLD"},
            _shifts,
            _shifts,
        ),
        Control("fdr_q", "fdr", "FDR", "number"),
        Control("alternative", "alternative", "test", "choice", _choices(SIDES, ALTERNATIVES)),
    ),
}
TITLES = {
    "data": "Data and stories",
    "features": "More about features",
    "time": "Time: downsampling and delays",
    "fit": "Fit: cross-validation and alphas",
    "test": "Significance",
}
TOOLTIPS = {
    "model_name": "The language model: choose one, or type any Hugging Face name or local model folder.",
    "layer_idx": "The layer that gives the features: 0 is the embedding, the last is the model's output.",
    "lookback": "Number of tokens that the model reads for each word, including the word's own.",
    "weights": "Untrained: the same architecture with random weights. What it predicts as well is not due to training.",
    "context_type": "How windows move along the story. The first is exact, the others are faster.",
    "stride": "Tokens by which a window moves in strided context; empty: the lookback.",
    "last_token": "The features of a word: at its last token, or their mean over all tokens of its window.",
    "first_token": "The token in front of every window. Choose none for models that must not begin with one (BLOOM) or "
    "whose BOS marks a turn in a chat.",
    "processing": "Weights as published, or with folded LayerNorms and a centred residual stream.",
    "embedding": "For word embeddings: a file of word vectors; empty: the model's input embedding.",
    "use_stored_contexts": "Use the text windows that came with the data; lookback then has no effect.",
    "time_sigma": "For time alone: how many TRs each of its columns reaches, as the sigma of a Gaussian.",
    "delay_extras": "Use the extras at the delays too. Ratings and sound may need it; head motion does not.",
    "downsample_method": "How one value per word becomes one value per TR.",
    "downsample_window": "Number of lobes on each side of the filter.",
    "cutoff_mult": "Cutoff of the filter, as a multiple of the TR rate.",
    "word_rate_bins": "Which words count for a TR. Half a TR around its time is the clock of all other features.",
    "fir_delays": "BOLD follows the words by several seconds: the fit uses the features from this many TRs earlier.",
    "high_pass": "Remove slower waves of BOLD, such as scanner drift, in each story. 128 is usual; empty: off.",
    "use_train_test_split": "Fit once and score other stories, or fit several times and score what each fit holds out.",
    "outer_folding_type": "What nested cross-validation holds out and scores. Whole stories leak least.",
    "n_outer_folds": "Number of outer folds, in which rows are held out and scored; at most as many as stories.",
    "outer_gap": "Seconds on both sides of a held-out part that are not trained on: neighbouring TRs are similar.",
    "folding_type": "Inner folds: how TRs are assigned to the folds that choose alpha.",
    "n_inner_folds": "Number of folds that choose alpha.",
    "chunk_length": "Number of consecutive TRs that are held out together.",
    "alphas": "Penalties to choose from, as in scikit-learn: '1e2 to 1e6 in 7 steps', or a list. Empty: 1e2 to 1e6 in "
    "7 steps; smaller ones where there is neither a model nor a word embedding.",
    "single_alpha": "Choose one alpha for all voxels instead of one per voxel.",
    "use_corr": "The measure by which alpha is chosen on held-out rows.",
    "normalpha": "Multiply alphas by the squared largest singular value of the features (Huth lab).",
    "prediction_floor": "Added to a prediction's standard deviation when alpha is chosen; LITcoder uses 1e-8.",
    "seed": "Random seed for folds, permutations, shifts and untrained weights.",
    "device": "Where to compute; the result is the same.",
    "significance": "The test of each voxel. Permutation: of the predictions. Shift: BOLD is shifted in time and "
    "fitted again, the only test for nested cross-validation. Parametric: finds too many, as it assumes white noise.",
    "n_permutations": "Number of permutations of the permutation test.",
    "block_trs": "TRs that a permutation keeps together; empty: shuffle phases, which keeps autocorrelation.",
    "n_shifts": "Number of shifts of BOLD in time, each with a full fit. 99 give p-values of 0.01 and more.",
    "least_shift": "The shortest shift in seconds; empty: long enough for the BOLD's autocorrelation.",
    "fdr_q": "False discovery rate: accepted share of false positives among the significant voxels.",
    "alternative": "One-sided: only positive correlations are significant. Two-sided: negative ones too.",
}


class SpacesField(Entry):
    """The feature spaces of the fit; the first one chosen comes first."""

    labels = MappingProxyType({"modality": "features", "joined_with": "features"})

    def __init__(self) -> None:
        self._order: list[str] = []
        heading = widgets.HTML(f"<b>{self.labels['modality']}</b>: choose one or more")
        self.boxes: dict[str, widgets.Checkbox] = {}
        for name in features.FEATURE_SPACES:
            label, tooltip = SPACES.get(name, (name, f"Feature space {name}."))
            layout = {"width": "auto", "margin": f"0 0 0 {LABEL_WIDTH}"}
            box = widgets.Checkbox(description=label, tooltip=tooltip, indent=False, layout=layout)
            self.boxes[name] = box.add_class(f"enb-space-{name.replace('_', '-')}")
            box.observe(lambda change, name=name: self._ticked(name, change["new"]), "value")
        super().__init__("spaces", [heading, *self.boxes.values()])

    def adapt(self, settings: Settings, assembly: Assembly) -> None:
        """Grey out the extras of data that have none."""
        extras = self.boxes["extras"]
        extras.disabled = not (extras.value or _names_of_extras(assembly))

    def _ticked(self, name: str, on: bool) -> None:
        self._order = [each for each in self._order if each != name] + [name] * on

    def show(self, settings: Settings) -> None:
        """Tick the feature spaces of the settings, in their order."""
        order = [name for name in (settings.modality, *settings.joined_with) if name in self.boxes]
        for name, box in self.boxes.items():
            box.value = name in order
        self._order = order

    def read(self) -> dict[str, Any]:
        """{"modality": ..., "joined_with": ...}; raises SettingsError if nothing is ticked."""
        if not self._order:
            raise SettingsError("modality", "Expected at least one feature space, got none; tick one.")
        return {"modality": self._order[0], "joined_with": tuple(self._order[1:])}

    def watch(self, on_change: Notify) -> None:
        """Call `on_change` when a feature space is ticked or unticked."""
        for box in self.boxes.values():
            box.observe(lambda _: on_change(), "value")


class ExtrasField(Entry):
    """Which of the arrays that came with the data are features."""

    labels = MappingProxyType({"extras": "extras"})

    def __init__(self) -> None:
        tip = "Arrays that came with the data, on the TR grid. Ctrl+click or Shift+arrow selects several."
        self.names = labelled(widgets.SelectMultiple, self.labels["extras"], tip, "enb-extras")
        self._known: tuple[str, ...] = ()
        super().__init__("extras", [self.names])

    def use(self, assembly: Assembly) -> None:
        """Offer the arrays of other data; what was chosen stays, and is a problem where these data lack it."""
        self._known = _names_of_extras(assembly)
        self._offer(self.names.value)

    def show(self, settings: Settings) -> None:
        """Choose the arrays of the settings."""
        self._offer(settings.extras)

    def _offer(self, chosen: tuple[str, ...]) -> None:
        self.names.value = ()  # a page shows the new list before the new choice
        self.names.options = tuple(dict.fromkeys((*self._known, *chosen)))
        self.names.rows = min(LIST_ROWS, max(2, len(self.names.options)))
        self.names.value = chosen

    def read(self) -> dict[str, Any]:
        """{"extras": ...}; raises SettingsError if nothing is chosen."""
        if not self.names.value:
            raise SettingsError(
                "extras", "Expected at least one array of the data's extras, got none; choose some."
            )
        return {"extras": tuple(self.names.value)}

    def watch(self, on_change: Notify) -> None:
        """Call `on_change` when the choice changes."""
        self.names.observe(lambda _: on_change(), "value")

    def enabled(self, settings: Settings, assembly: Assembly) -> bool:
        """Whether extras are among the feature spaces."""
        return _adds(settings, assembly)

    def adapt(self, settings: Settings, assembly: Assembly) -> None:
        """Show the list where extras are among the feature spaces."""
        self.layout.display = None if self.enabled(settings, assembly) else "none"


def _names_of_extras(assembly: Assembly) -> tuple[str, ...]:
    """The names in the stories' extras, each once."""
    return tuple(dict.fromkeys(str(name) for story in assembly.stories.values() for name in story.extras))


class SplitLine(widgets.VBox):
    """The button that checks whether the folds leak, and its last answer, which turns amber when the split changes."""

    def __init__(self) -> None:
        tip = "Score a model that knows nothing but time with these folds: above 0, they leak"
        self.button = button("Check the split", "check", tip, "enb-split-check", width="auto")
        self.line = widgets.HTML().add_class("enb-split-line")
        super().__init__([self.button, self.line])

    def show(self, sentence: str, outdated: str = "") -> None:
        """Show the answer, and in what it is outdated; "" shows nothing."""
        text = f"{sentence} {outdated}".strip()
        self.line.value = warned(text) if sentence and outdated else note(text)


# ---------------------------------------------------------------------- data


class DataControls(Entry):
    """Choose a data set and open it; `on_open(source, options)` is called with the arguments of `load_assembly`."""

    def __init__(self, on_open: Open) -> None:
        self._on_open = on_open
        tip = "The source of words and brain responses. Open loads the chosen data."
        sources = {GIVEN: "given", **SOURCES}
        self.source = labelled(widgets.Dropdown, "data", tip, "enb-source", options=sources)
        options: dict[str, Any] = {"continuous_update": False, "placeholder": "file or folder"}
        self.path = labelled(widgets.Text, "path", PATH_TIP, "enb-path", **options)
        options["placeholder"], tip = "such as UTS03", "The subject to load, if the folder has several."
        self.subject = labelled(widgets.Text, "subject", tip, "enb-subject", **options)
        self.open_button = button("Open", "folder-open", "Load the chosen data", "enb-open", width="105px")
        self._note = widgets.HTML().add_class("enb-data-note")
        super().__init__("data", [self.source, self.path, self.subject, self.open_button, self._note])
        self.source.observe(lambda _: self._enable(), "value")
        self.open_button.on_click(lambda _: self._opened())
        self._enable()

    def _enable(self) -> None:
        """Show the boxes that the chosen source needs, and enable Open."""
        self.path.layout.display = None if self.source.value in ("file", "folder") else "none"
        self.subject.layout.display = None if self.source.value == "folder" else "none"
        self.open_button.disabled = self.source.value == "given"

    def _opened(self) -> None:
        kind, subject = self.source.value, self.subject.value.strip()
        try:
            source = "demo" if kind == "demo" else _existing(self.path.value.strip(), kind)
        except ValueError as error:
            self.show_problem(str(error))
            return
        self.show_problem(None)
        self._on_open(source, {"subject": subject} if kind == "folder" and subject else {})

    def show_data(self, assembly: Assembly) -> None:
        """Describe the open data."""
        kind = "simulated BOLD" if assembly.simulated else "BOLD"
        voxels = f"{kind} of {assembly.n_voxels:,} voxels"
        text = f"{assembly.subject}: {len(assembly)} stories, {voxels}, TR {assembly.tr:g} s"
        self._note.value = note(text)
        self.show_problem(None)


def _existing(typed: str, kind: str) -> str:
    """The path of an existing "file" or "folder"; raises a ValueError for any other."""
    if not typed:
        raise ValueError(f"Expected the path of a {kind}, got none; type it above.")
    path = Path(parse_path(typed, kind))
    if not (path.is_file() if kind == "file" else path.is_dir()):
        found = f"There is no {kind} at {shorten(typed, 200)!r}"
        start = "" if path.is_absolute() else f" Relative paths start at {Path.cwd()}."
        raise ValueError(f"{found}; check the path.{start}")
    return str(path)


class StoriesField(Entry):
    """Stories to fit on and stories to test on."""

    labels = MappingProxyType({"stories": "stories", "test_stories": "test on"})

    def __init__(self) -> None:
        tips = (
            "Stories to use; those chosen for testing are not used for fitting.",
            "Held out of the fit and predicted; the scores are from these stories.",
        )
        self.lists: dict[str, Any] = {}
        for (name, label), tip in zip(self.labels.items(), tips, strict=True):
            tip += " Ctrl+click or Shift+arrow selects several."
            css = f"enb-{name.replace('_', '-')}"
            self.lists[name] = labelled(widgets.SelectMultiple, label, tip, css)
        self._note = widgets.HTML().add_class("enb-stories-note")
        self._unknown: dict[str, tuple[str, ...]] = {}
        super().__init__("stories", [*self.lists.values(), self._note])

    def use(self, assembly: Assembly) -> None:
        """Offer the stories of other data, with the data's own choice."""
        self._unknown = {}
        self._default = {"stories": tuple(assembly.stories), "test_stories": assembly.test_stories}
        for name, box in self.lists.items():
            box.value = ()  # a page shows the new list before the new choice: an old choice may be beyond its end
            box.options = tuple(assembly.stories)
            box.rows = min(LIST_ROWS, max(2, len(assembly.stories)))
            box.value = self._default[name]

    def show(self, settings: Settings) -> None:
        """Choose the stories of the settings; names that the data do not have are kept until others are chosen."""
        self._unknown = {}
        for name, box in self.lists.items():
            asked = getattr(settings, name)
            chosen = self._default[name] if asked is None else tuple(asked)
            box.value = tuple(story for story in box.options if story in chosen)
            if not set(chosen) <= set(box.options):
                self._unknown[name] = chosen

    def read(self) -> dict[str, Any]:
        """{"stories": ..., "test_stories": ...}, None for the data's own choice."""
        if not self.lists["stories"].value:
            raise SettingsError("stories", "Expected at least one story to use, got none; choose some.")
        chosen = {name: tuple(box.value) for name, box in self.lists.items()}
        found = {name: None if names == self._default[name] else names for name, names in chosen.items()}
        return found | self._unknown

    def watch(self, on_change: Notify) -> None:
        """Call `on_change` when a choice changes."""

        def changed(name: str) -> None:
            self._unknown.pop(name, None)
            on_change()

        for name, box in self.lists.items():
            box.observe(lambda _, name=name: changed(name), "value")

    def adapt(self, settings: Settings, assembly: Assembly) -> None:
        """Show how many stories each part has."""
        try:
            split = split_stories(assembly, settings)
        except SettingsError:
            self._note.value = ""
        else:
            held = f"{len(split.test)} for testing" if split.test else "all are held out in turn"
            self._note.value = note(f"{len(split.train)} stories for fitting, {held}")


# ---------------------------------------------------------------------- all controls


class Controls(widgets.VBox):
    """All controls of the panel, and the `Settings` that they show.

    Parameters
    ----------
    data : Assembly
    settings : Settings, to start with
    on_change : called when the user changes a value
    on_open : called with the arguments of `load_assembly` when other data are to be opened
    lookup : ModelLookup

    Attributes
    ----------
    fields : {setting: Entry}
    """

    def __init__(
        self, data: Assembly, settings: Settings, on_change: Notify, on_open: Open, lookup: ModelLookup
    ) -> None:
        self._base, self._lookup = settings, lookup
        self._quiet = Flag()
        self._on_change: Notify = lambda: None  # until the controls are made
        self._moved: tuple[str, str] = ("", "")
        self.data = DataControls(on_open)
        self.stories, self.spaces, self.trimming = StoriesField(), SpacesField(), TrimmingField()
        self.extras, self.split = ExtrasField(), SplitLine()
        made: dict[str, list[Any]] = {
            css: [Field(row, TOOLTIPS[row.setting]) for row in rows] for css, rows in ROWS.items()
        }
        main = made.pop("main")
        made["data"].insert(0, self.stories)
        made["features"] = [self.spaces, self.extras, *made["features"]]
        self.entries: list[Any] = [*main, self.trimming, *(entry for part in made.values() for entry in part)]
        self.fields = {name: entry for entry in self.entries for name in entry.labels}
        made["data"].insert(0, self.data)
        made["fit"].insert(made["fit"].index(self.fields["outer_gap"]) + 1, self.split)
        self.sections = {css: Section(TITLES[css], parts, css) for css, parts in made.items()}
        self.fields["model_name"].control.options = [info.name for info in lookup.available[:N_SUGGESTED]]
        first, *others = self.sections.values()
        super().__init__([first, *main, self.trimming, *others])
        self.use(data)
        self.show(settings)
        for entry in self.entries:
            entry.watch(self._changed)
        self._on_change = on_change

    def _changed(self) -> None:
        if not self._quiet.on:
            self._on_change()

    def show(self, settings: Settings) -> None:
        """Set all controls to the settings."""
        self._base = settings
        with self._quiet:
            slider = self.fields["layer_idx"].control
            slider.max = max(slider.max, settings.layer_idx, 1)
            for entry in self.entries:
                entry.show(settings)
        self._changed()

    def use(self, assembly: Assembly) -> None:
        """Offer the stories of other data, and forget the choice of stories."""
        self._assembly = assembly
        self._base = replace(self._base, stories=None, test_stories=None)
        with self._quiet:
            self.stories.use(assembly)
            self.extras.use(assembly)
        self.data.show_data(assembly)
        self.trimming.use(assembly)
        self._changed()

    def read(self) -> tuple[Settings, dict[str, str]]:
        """The settings, and {setting: problem} of the controls without a valid value, which keep the last one."""
        values: dict[str, Any] = {}
        found: list[tuple[Entry, SettingsError]] = []
        for entry in self.entries:
            try:
                values |= entry.read()
            except SettingsError as error:
                found.append((entry, error))
        settings = replace(self._base, **values)
        data = self._assembly  # what is greyed out has no effect, so it is no problem
        return settings, {error.field: str(error) for entry, error in found if entry.enabled(settings, data)}

    @property
    def settings(self) -> Settings:
        """The settings of the controls; raises SettingsError for a control without a valid value."""
        settings, problems = self.read()
        if problems:
            raise SettingsError(*next(iter(problems.items())))
        return settings

    def changed_since(self, settings: Settings) -> list[str]:
        """Names of the settings that decide a result on these data and differ from those given."""
        now, data = self.read()[0], self._assembly
        differ = [name for name in self.fields if _as_used(now, name, data) != _as_used(settings, name, data)]
        unused = {"device"} if now.use_train_test_split else {"device", "test_stories"}
        return [name for name in differ if self.fields[name].enabled(now, data) and name not in unused]

    def adapt(self) -> str | None:
        """Update ranges, notes and greyed-out controls; returns what is wrong with the model, or None.

        A layer beyond the last one moves to the last, and the note of the model reports it.
        """
        settings, problems = self.read()
        for entry in self.entries:
            entry.adapt(settings, self._assembly)
        tr, delays = self._assembly.tr, () if "fir_delays" in problems else settings.fir_delays
        seconds = ", ".join(f"{delay * tr:g}" for delay in delays)
        self.fields["fir_delays"].show_note(f"that is {seconds} s at a TR of {tr:g} s" if seconds else "")
        self.fields["outer_folding_type"].show_note(_outer_folds(settings, self._assembly))
        untested = _nested(settings, self._assembly) and settings.significance == "permutation"
        self.fields["significance"].show_note(NO_PERMUTATIONS if untested else "")
        info, model = self._lookup.info(settings.model_name), self.fields["model_name"]
        if isinstance(info, ModelInfo):
            random = "; random weights" if settings.weights == "untrained" else ""
            model.show_note(describe(info) + random + self._limit_layer(info))
            return None
        model.show_note("")
        if not model.enabled(settings, self._assembly):
            return None
        return info or "Looking up this model; Fit is disabled until then."

    def _limit_layer(self, info: ModelInfo) -> str:
        """Let the slider end at the model's last layer; what to report about a layer that moved."""
        slider = self.fields["layer_idx"].control
        if slider.value > info.n_layers:
            moved = f"; this model has no layer {slider.value}, so the slider moved to {info.n_layers}"
            self._moved = (info.name, moved)
        elif slider.value < info.n_layers or self._moved[0] != info.name:
            self._moved = ("", "")
        slider.max = info.n_layers
        return self._moved[1]

    def show_problems(self, problems: Mapping[str, str]) -> list[str]:
        """Show each problem at its control and unfold its section; returns the problems without a control."""
        for entry in self.entries:
            found = [problems[name] for name in entry.labels if name in problems]
            entry.show_problem(" ".join(found) or None)
        for section in self.sections.values():
            if any(self.fields.get(name) in section.body.children for name in problems):
                section.unfold()
        return [sentence for name, sentence in problems.items() if name not in self.fields]

    def label_of(self, setting: str) -> str:
        """The label of a setting's control."""
        entry = self.fields.get(setting)
        return entry.labels[setting] if entry is not None else setting.replace("_", " ")


def _n_stories(settings: Settings, data: Assembly) -> int:
    return len(data.stories if settings.stories is None else settings.stories)


def _outer_folds(settings: Settings, data: Assembly) -> str:
    """What nested cross-validation holds out, in words."""
    kind, n_folds, gap = settings.outer_folds_of(_n_stories(settings, data))
    what = FOLDING[kind] + (f", {gap:g} s on both sides not trained on" if gap else "")
    return f"{n_folds} folds: {what}"


def _as_used(settings: Settings, name: str, data: Assembly) -> Any:
    """A setting as a fit on these data uses it: None may stand for a default."""
    if name == "alphas":
        return settings.alpha_grid
    if name in OUTER_FOLDS:
        return settings.outer_folds_of(_n_stories(settings, data))[OUTER_FOLDS.index(name)]
    test = set(data.test_stories if settings.test_stories is None else settings.test_stories)
    if name == "stories":  # those for testing are held out, whether or not they are among the others
        chosen = set(data.stories if settings.stories is None else settings.stories)
        return chosen | test if settings.use_train_test_split else chosen
    return test if name == "test_stories" else getattr(settings, name)


# ---------------------------------------------------------------------- models


class ModelLookup:
    """Answers at once for models on this machine; looks others up in a thread.

    Parameters
    ----------
    on_found : called in that thread when the answer for a name is known
    """

    def __init__(self, on_found: Notify) -> None:
        self._on_found = on_found
        self.available = features.available_models()
        self._here = {"demo", *(info.name for info in self.available if info.on_this_machine)}
        self._found: dict[str, ModelInfo | str] = {}
        self.seeking = Latest(self._seek)

    def info(self, name: str) -> ModelInfo | str | None:
        """The model's size, a sentence that says what is wrong with it, or None while it is being looked up."""
        if name in self._here or not name.strip() or os.path.isdir(name):
            return _look_up(name)
        if name not in self._found:
            self.seeking.ask(name)
        return self._found.get(name)

    def forget(self, name: str) -> None:
        """Look a name up again if it was not found, since the network may be back."""
        if isinstance(self._found.get(name), str):
            del self._found[name]

    def _seek(self, name: str) -> None:
        self._found[name] = _look_up(name)
        self._on_found()


def _look_up(name: str) -> ModelInfo | str:
    try:
        return features.model_info(name)
    except ValueError as error:
        return str(error) or type(error).__name__
    except Exception as error:  # noqa: BLE001 - whatever a configuration holds, the user must see it
        what = f"{shorten(name)} cannot be read as a language model ({error_text(error)})"
        return f"{what}; choose another, such as demo."


def describe(info: ModelInfo) -> str:
    """Layers, width, context and memory of a model in one line."""
    reads = "any number of" if info.n_ctx is None else f"up to {info.n_ctx - 1}"
    parts = [f"{info.n_layers} layers of {info.d_model} features, reads {reads} tokens"]
    if n := info.n_bytes:
        parts.append(f"{n / 1e9:.1f} GB of memory" if n >= 1e9 else f"{max(n / 1e6, 1):.0f} MB of memory")
    if not info.on_this_machine:
        parts.append("not on this machine: downloaded at its first use")
    return ", ".join(parts)
