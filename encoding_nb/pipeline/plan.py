"""The plan of a run, from an assembly and settings: split, kept rows, folds, sizes, problems.

`plan_run` computes it once, and every stage takes the plan. `check` does the same work and collects every problem.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from .. import _progress, brain, features, ridge
from .._validation import error_text
from ..assembly import Array, Assembly, Story, check_assembly
from ..design import Trimming
from ..scoring import LEAST_BLOCKS, LEAST_ROWS
from ..settings import Settings, SettingsError, check_settings, check_values

# `check` makes the inner folds of this many outer folds only: those with the fewest training rows.
OUTER_FOLDS_LOOKED_AT = 50
EXPECTED_WIDTH = 300  # columns of a file of word vectors
_FOLD_FIELDS = {"folding_type", "n_inner_folds", "chunk_length", "seed"}
_OUTER_FIELDS = {"n_outer_folds", "outer_folding_type", "outer_gap"}
_MODEL_FIELDS = {"modality", "joined_with", "model_name", "layer_idx", "lookback", "context_type", "stride"}
_MODEL_FIELDS |= {"processing", "last_token", "first_token", "use_stored_contexts", "embedding", "weights"}
LEAST_PERIOD = 10  # TRs, of a high-pass
_LEAST_PARAMETRIC = 3  # rows, see `scoring.correlation_pvalues`


@dataclass(frozen=True)
class FitShape:
    """Sizes of a fit: rows to train on and to predict, columns, voxels, and the rows of its longest story."""

    n_rows: int
    n_test_rows: int
    n_columns: int
    n_voxels: int
    longest_story: int


@dataclass(frozen=True, eq=False)
class Plan:
    """Everything about a run that follows from its assembly and settings.

    Attributes
    ----------
    assembly, settings
    memory : the cache of activations; None without a language model
    train, test : stories, in the assembly's order; with nested cross-validation all are in `train`
    feature_rows, bold_rows : {story: slice} of the rows that trimming keeps on its TR grid and in its BOLD
    n_kept : {story: number of kept rows}
    groups : (n_rows,), the story number of each training row
    outer_folds : of nested cross-validation, over the training rows; empty with a train/test split
    inner_folds : the folds that choose the alphas, a tuple for each fit: one with a train/test split, else one for
        each outer fold, over the rows that it trains on
    split_indices : {story: (n_trs - 1,)}, the first word of each TR but the first; None assigns words to TRs by their
        times
    """

    assembly: Assembly
    settings: Settings
    memory: Any
    train: tuple[Story, ...]
    test: tuple[Story, ...]
    feature_rows: Mapping[str, slice]
    bold_rows: Mapping[str, slice]
    n_kept: Mapping[str, int]
    groups: Array = field(repr=False)
    outer_folds: tuple[ridge.Fold, ...] = field(repr=False)
    inner_folds: tuple[tuple[ridge.Fold, ...], ...] = field(repr=False)
    split_indices: Mapping[str, Array] | None = field(default=None, repr=False)

    @property
    def stories(self) -> tuple[Story, ...]:
        """All stories of the run."""
        return self.train + self.test

    @cached_property
    def specs(self) -> dict[str, features.FeatureSpec]:
        """{feature space: its specification}, in the order of columns."""
        return self.settings.feature_specs

    @property
    def n_time_columns(self) -> int:
        """Columns of the space "time": TRs of the longest story."""
        return max(story.n_trs for story in self.stories)

    @cached_property
    def lacking(self) -> dict[str, tuple[str, ...]]:
        """{story: feature spaces that are not cached}, for the stories that lack any."""
        found = {}
        for story in self.stories:
            spaces = [
                name
                for name, spec in self.specs.items()
                if not features.is_cached(story, spec, memory=self.memory)
            ]
            if spaces:
                found[story.name] = tuple(spaces)
        return found

    @cached_property
    def missing(self) -> dict[str, int]:
        """{story: number of words} for the stories whose features are not cached."""
        return {name: len(self.assembly.stories[name].words) for name in self.lacking}

    @cached_property
    def shape(self) -> FitShape:
        """Sizes of the fit."""
        return self.shape_of(len(self.train))

    def shape_of(self, n_stories: int) -> FitShape:
        """Sizes of the fit with only the first `n_stories` training stories."""
        train = [self.n_kept[story.name] for story in self.train[:n_stories]]
        test = [self.n_kept[story.name] for story in self.test]
        widths = {space: _width(self, space) for space in self.specs}
        delays = {
            space: len(self.settings.fir_delays) if spec.delayed else 1 for space, spec in self.specs.items()
        }
        return FitShape(
            n_rows=sum(train),
            n_test_rows=sum(test) if self.test else sum(train),
            n_columns=sum(width * delays[space] for space, width in widths.items()),
            n_voxels=self.assembly.n_voxels,
            longest_story=max(train + test),
        )


def _width(plan: Plan, space: str) -> int:
    """Columns of a feature space before delays."""
    settings = plan.settings
    if space in ("wordrate", "position"):
        return 1 if space == "wordrate" else 3
    if space == "time":
        return plan.n_time_columns
    if space == "extras":
        return features.extras_width(plan.stories[0], settings.extras)
    if space == "embeddings" and settings.embedding is not None:
        return EXPECTED_WIDTH
    return features.model_info(settings.model_name).d_model or EXPECTED_WIDTH


def plan_run(
    assembly: Assembly,
    settings: Settings,
    *,
    memory: Any = None,
    inner_folds: Sequence[ridge.Fold] | None = None,
    split_indices: Mapping[str, Array] | None = None,
) -> Plan:
    """Plan a run, without reading BOLD or a model's weights.

    If pycortex has not made the mask of the surface yet, it makes it now, once, which takes seconds: a map needs it,
    and BOLD of another size must not be found after the fit.

    Parameters
    ----------
    assembly, settings
    memory : joblib.Memory or path, optional
        Cache of activations; None takes `features.default_memory()`.
    inner_folds : pairs of (train, test) row numbers, optional
        Over the kept rows of the training stories, stacked, instead of the folds that the settings give.
        Only with a train/test split.
    split_indices : {story: (n_trs - 1,)}, optional
        See `Plan`.

    Raises
    ------
    SettingsError
        The first problem that `check` finds.
    ValueError
        Given folds that do not fit the rows.
    TypeError
        `assembly` is not an Assembly, or `settings` not a Settings.

    Warns
    -----
    UserWarning
        The surface cannot be found or read, so no brain map of this fit can be drawn.
    """
    check_assembly(assembly, "plan_run")
    check_settings(settings, "plan_run")
    problems, draft = _draft(assembly, settings, looked_at=None)
    problems |= {} if problems else _check_surface(assembly, planned=True)
    for name, sentence in problems.items():
        raise SettingsError(name, sentence)
    folds = draft.inner_folds
    if inner_folds is not None:
        folds = (_given_folds(inner_folds, len(draft.groups), settings),)
    if memory is None and "language_model" in settings.spaces:
        memory = features.default_memory()
    kept = {story.name: settings.trimming.slices(test=False) for story in draft.train}
    kept |= {story.name: settings.trimming.slices(test=True) for story in draft.test}
    return Plan(
        assembly,
        settings,
        memory,
        feature_rows={name: rows for name, (rows, _) in kept.items()},
        bold_rows={name: rows for name, (_, rows) in kept.items()},
        split_indices=split_indices,
        **vars(draft) | {"inner_folds": folds},
    )


def check(assembly: Assembly, settings: Settings) -> dict[str, str]:
    """Problems of a run: {setting: one sentence}, empty when it can start.

    "surface" is BOLD of another size than the surface of the data. Reads a model's configuration, not its weights,
    and no BOLD. No value of a setting raises an error.

    Raises
    ------
    TypeError
        `assembly` is not an Assembly, or `settings` not a Settings.
    """
    check_assembly(assembly, "check")
    check_settings(settings, "check")
    problems = _draft(assembly, settings, looked_at=OUTER_FOLDS_LOOKED_AT)[0]
    return problems | _check_surface(assembly, planned=False)


# ---------------------------------------------------------------------- stories


@dataclass(frozen=True)
class Split:
    """Names of the training and the test stories."""

    train: tuple[str, ...]
    test: tuple[str, ...]


def split_stories(assembly: Assembly, settings: Settings) -> Split:
    """The stories of each part, in the assembly's order; in nested cross-validation all are in `train`.

    Raises
    ------
    SettingsError
        A story that the assembly does not have; no training or no test story.
    """
    chosen = assembly.stories if settings.stories is None else settings.stories
    test = assembly.test_stories if settings.test_stories is None else settings.test_stories
    for name, given in (("stories", chosen), ("test_stories", test)):
        for story in given:
            if story not in assembly.stories:
                known = ", ".join(assembly.stories)
                raise SettingsError(name, f"Story {story!r} is not in this assembly; it has {known}.")
    if not settings.use_train_test_split:
        if not chosen:
            raise SettingsError("stories", "There is no story to fit: choose at least one.")
        return Split(tuple(s for s in assembly.stories if s in chosen), ())
    train = tuple(s for s in assembly.stories if s in chosen and s not in test)
    if not train:
        raise SettingsError(
            "stories", "There is no training story besides the test stories; choose at least one more."
        )
    if not test:
        raise SettingsError(
            "test_stories",
            "There is no test story: name one in test_stories, or set use_train_test_split=False.",
        )
    return Split(train, tuple(s for s in assembly.stories if s in test))


# ---------------------------------------------------------------------- the plan and its problems


@dataclass
class _Draft:
    """The parts of a plan that are known so far."""

    train: tuple[Story, ...] = ()
    test: tuple[Story, ...] = ()
    n_kept: dict[str, int] = field(default_factory=dict)
    groups: Array = field(default_factory=lambda: np.empty(0, int))
    outer_folds: tuple[ridge.Fold, ...] = ()
    inner_folds: tuple[tuple[ridge.Fold, ...], ...] = ()


def _draft(assembly: Assembly, settings: Settings, *, looked_at: int | None) -> tuple[dict[str, str], _Draft]:
    """Every problem of a run, {setting: sentence}, and the parts of its plan that could be made.

    `looked_at`: for how many outer folds of nested cross-validation inner folds are made; None for all.
    """
    draft, problems = _Draft(), check_values(settings)
    if not problems.keys() & _MODEL_FIELDS:
        problems |= _check_features(settings)
    if settings.device == "cuda" and (problem := features.device_problem("cuda")):
        problems["device"] = problem
    if problems.keys() & {"stories", "test_stories", "use_train_test_split"}:
        return problems, draft
    try:
        split = split_stories(assembly, settings)
        draft.train = tuple(assembly.stories[name] for name in split.train)
        draft.test = tuple(assembly.stories[name] for name in split.test)
        if not problems.keys() & _MODEL_FIELDS:
            _find_contexts(draft.train + draft.test, settings)
    except SettingsError as error:
        problems[error.field] = str(error)
        if error.field != "use_stored_contexts":
            return problems, draft
    if "trimming" in problems:
        return problems, draft
    try:
        for story in draft.train + draft.test:
            draft.n_kept[story.name] = _n_kept(story, settings.trimming, test=story.name in split.test)
        draft.groups = np.repeat(
            np.arange(len(draft.train)), [draft.n_kept[story.name] for story in draft.train]
        )
        if "fir_delays" not in problems:
            problems |= _check_delays(settings, draft.n_kept)
        if "extras" in settings.spaces and not problems.keys() & {"modality", "joined_with", "extras"}:
            problems |= _check_extras(settings, draft.train + draft.test)
        if settings.high_pass is not None and "high_pass" not in problems:
            problems |= _check_high_pass(settings, assembly.tr, draft.n_kept)
        if not problems.keys() & (_FOLD_FIELDS if draft.test else _FOLD_FIELDS | _OUTER_FIELDS):
            _make_folds(draft, settings, assembly.tr, looked_at)
            if not problems.keys() & {"significance", "block_trs"}:
                problems |= _check_held_out(settings, draft)
    except SettingsError as error:
        problems[error.field] = str(error)
    return problems, draft


def _check_surface(assembly: Assembly, *, planned: bool) -> dict[str, str]:
    """BOLD of another size than its surface. A mask that does not exist yet is made only if the run is `planned`."""
    surface = assembly.surface
    if surface is None:
        return {}
    try:
        n_expected = brain.voxel_count(surface) if planned else brain.known_voxel_count(surface)
    except Exception as error:  # noqa: BLE001 - a fit needs no map
        if planned:
            _progress.warn(f"No brain map of this fit can be drawn ({error_text(error)}).", stacklevel=4)
        return {}
    if n_expected in (None, assembly.n_voxels):
        return {}
    expected = f"{n_expected} vertices of {surface.subject}"
    if surface.mask != brain.VERTICES:
        expected = f"{n_expected} voxels of mask {surface.mask!r} of {surface.subject}/{surface.transform}"
    return {
        "surface": f"Expected BOLD of the {expected}, got {assembly.n_voxels} columns, so brain maps and regions would "
        f"be wrong; name the mask that BOLD was read with, or leave the data's surface=None, which has no maps."
    }


def _check_features(settings: Settings) -> dict[str, str]:
    """Problems of the feature spaces: their model, layer, lookback and file."""
    problems: dict[str, str] = {}
    if "embeddings" in settings.spaces:
        problems |= _check_embedding(settings)
    spec = settings.feature_specs.get("language_model")
    if spec is not None and spec.activation is not None:
        problems |= features.check_spec(
            spec.activation, layer_idx=settings.layer_idx, stored=settings.use_stored_contexts
        )
    return problems


def _check_embedding(settings: Settings) -> dict[str, str]:
    """Problems of static embeddings: a missing file, an unknown model."""
    if settings.embedding is None:
        spec = features.ActivationSpec(settings.model_name, lookback=1, weights=settings.weights)
        found = features.check_spec(spec, layer_idx=0)
        return {name: sentence for name, sentence in found.items() if name == "model_name"}
    if features.is_vector_file(settings.embedding):
        return {}
    return {
        "embedding": f"There is no file of word vectors at {settings.embedding!r}; check the path, or leave "
        f"embedding=None, which takes the input embedding of model_name."
    }


def _find_contexts(stories: Sequence[Story], settings: Settings) -> None:
    """Refuse `use_stored_contexts` for a story without stored context windows."""
    if settings.use_stored_contexts is not True:
        return
    spec = settings.feature_specs.get("language_model")
    if spec is None:
        return
    for story in stories:
        try:
            features.stored_contexts(story, spec)
        except ValueError as error:
            raise SettingsError("use_stored_contexts", str(error)) from None


def _n_kept(story: Story, trimming: Trimming, *, test: bool) -> int:
    """Rows of a story that trimming keeps, two or more."""
    try:
        n_rows = trimming.check(story.name, story.n_trs, story.n_rows, test=test)
    except ValueError as error:
        raise SettingsError("trimming", str(error)) from None
    if n_rows < 2:
        part = "test" if test else "training"
        raise SettingsError(
            "trimming",
            f"{story.name} ({part} story): trimming keeps {n_rows} of {story.n_rows} rows, and a story needs "
            f"2 or more; keep more rows or leave the story out.",
        )
    return n_rows


def _check_delays(settings: Settings, n_kept: Mapping[str, int]) -> dict[str, str]:
    """A delay as long as a story would make columns of zeros."""
    story, shortest = min(n_kept.items(), key=lambda pair: pair[1])
    furthest = max(settings.fir_delays, key=abs)
    if abs(furthest) < shortest:
        return {}
    return {
        "fir_delays": f"Expected delays shorter than every story, got {furthest} TRs where {story} keeps {shortest}; "
        f"try (1, 2, 3, 4)."
    }


def _check_extras(settings: Settings, stories: Sequence[Story]) -> dict[str, str]:
    """Arrays that a story lacks, or that have other rows than the story or other columns than the first story's."""
    widths = {}
    for story in stories:
        try:
            widths[story.name] = features.extras_width(story, settings.extras)
        except ValueError as error:
            return {"extras": str(error)}
    first, other = stories[0].name, next((n for n, w in widths.items() if w != widths[stories[0].name]), None)
    if other is None:
        return {}
    return {
        "extras": f"Expected extras of the same number of columns in every story, got {widths[first]} in {first} and "
        f"{widths[other]} in {other}."
    }


def _check_high_pass(settings: Settings, tr: float, n_kept: Mapping[str, int]) -> dict[str, str]:
    """A period that is longer than a story, whose slowest wave it would not remove, or so short that little is left."""
    story, shortest = min(n_kept.items(), key=lambda pair: pair[1])
    if settings.high_pass < LEAST_PERIOD * tr:
        return {
            "high_pass": f"Expected a high_pass of {LEAST_PERIOD * tr:g} s ({LEAST_PERIOD} TRs) or more, got "
            f"{settings.high_pass:g}, which removes most of BOLD; it is a period in seconds: for a cut-off of 0.01 Hz, "
            f"set high_pass=100."
        }
    if settings.high_pass <= shortest * tr:
        return {}
    return {
        "high_pass": f"Expected a high_pass shorter than every story, got {settings.high_pass:g} s where {story} keeps "
        f"{shortest} rows, {shortest * tr:g} s; choose a shorter period, None, or leave the story out."
    }


# ---------------------------------------------------------------------- folds


def _make_folds(draft: _Draft, settings: Settings, tr: float, looked_at: int | None) -> None:
    """Add the folds to a draft."""
    groups = draft.groups
    if draft.test:
        draft.inner_folds = (_inner_folds(groups, settings),)
        return
    draft.outer_folds = outer = _outer_folds(groups, settings, tr)
    fewest_first = sorted(range(len(outer)), key=lambda number: len(outer[number].train))
    gap = settings.outer_folds_of(len(draft.train))[2]
    around = f", which leaves out {gap:g} s on both sides of the held-out rows (outer_gap)" if gap else ""
    inner = {
        number: _inner_folds(
            groups[outer[number].train],
            settings,
            where=f"Inner folds within outer fold {number + 1} of {len(outer)}{around}: ",
        )
        for number in fewest_first[:looked_at]
    }
    draft.inner_folds = tuple(inner[number] for number in sorted(inner))


def _inner_folds(groups: Array, settings: Settings, *, where: str = "") -> tuple[ridge.Fold, ...]:
    """The folds that choose alphas."""
    named = {"n_folds": "n_inner_folds", "groups": "folding_type", "trim_size": "folding_type"}
    return _folds(groups, settings, settings.folding_type, settings.n_inner_folds, 0, named, where)


def _outer_folds(groups: Array, settings: Settings, tr: float) -> tuple[ridge.Fold, ...]:
    """The folds of nested cross-validation, each with enough rows to train on."""
    kind, n_folds, seconds = settings.outer_folds_of(len(np.unique(groups)))
    gap = int(np.ceil(seconds / tr - 1e-9))
    named = {name: "outer_folding_type" for name in ("groups", "trim_size", "folding_type")}
    named |= {"n_folds": "n_outer_folds", "gap": "outer_gap"}
    made = _folds(groups, settings, kind, n_folds, gap, named, "")
    fewest = min(len(fold.train) for fold in made)
    if gap and fewest < 2 * settings.n_inner_folds:
        raise SettingsError(
            "outer_gap",
            f"Expected {2 * settings.n_inner_folds} rows or more to train on in each outer fold, got {fewest} of "
            f"{len(groups)}, since {seconds:g} s ({gap} rows) on both sides of the held-out rows are left out; set a "
            f"shorter outer_gap, or fewer n_inner_folds.",
        )
    return made


def _folds(
    groups: Array,
    settings: Settings,
    kind: str,
    n_folds: int,
    gap: int,
    named: Mapping[str, str],
    where: str,
) -> tuple[ridge.Fold, ...]:
    """Folds of rows; `named`: the setting of each argument of `make_folds`."""
    try:
        made = ridge.make_folds(
            len(groups),
            folding_type=kind,
            n_folds=n_folds,
            chunk_length=settings.chunk_length,
            gap=gap,
            groups=groups,
            seed=settings.seed,
        )
    except ridge.FoldError as error:
        raise SettingsError(named.get(error.argument, error.argument), f"{where}{error}") from None
    return tuple(made)


def _given_folds(given: Sequence[ridge.Fold], n_rows: int, settings: Settings) -> tuple[ridge.Fold, ...]:
    """Folds from the caller, checked against the rows that they number."""
    if not settings.use_train_test_split:
        raise ValueError(
            "inner_folds number the rows of one training set, but use_train_test_split=False makes one per outer "
            "fold; leave inner_folds out."
        )
    return tuple(ridge.check_folds(given, n_rows))


def _check_held_out(settings: Settings, draft: _Draft) -> dict[str, str]:
    """Too few held-out rows, or blocks of them, for p-values."""
    if settings.significance == "shift" or (settings.significance == "permutation" and not draft.test):
        return {}  # shifts need rows of stories, see `shifts`; nested predictions are not permuted
    if draft.test:
        n_rows = sum(draft.n_kept[story.name] for story in draft.test)
    else:
        n_rows = len(np.unique(np.concatenate([fold.test for fold in draft.outer_folds])))
    if settings.significance == "parametric":
        if n_rows >= _LEAST_PARAMETRIC:
            return {}
        names = ", ".join(story.name for story in draft.test)
        return {
            "trimming": f"{names} (test story): trimming keeps {n_rows} rows, and p-values need {_LEAST_PARAMETRIC} or "
            f"more; keep more rows or hold out more stories."
        }
    if settings.block_trs is None:
        if n_rows >= LEAST_ROWS:
            return {}
        return {
            "significance": f"The permutation test needs {LEAST_ROWS} held-out rows or more, got {n_rows}; hold out "
            f"more stories, trim less, or choose significance='parametric'."
        }
    n_blocks, most = -(-n_rows // settings.block_trs), (n_rows - 1) // (LEAST_BLOCKS - 1)
    if n_blocks >= LEAST_BLOCKS:
        return {}
    advice = f"choose a block of at most {most} TRs" if most else "choose significance='parametric'"
    return {
        "block_trs": f"The permutation test needs {LEAST_BLOCKS} blocks or more, and {n_rows} held-out rows in blocks "
        f"of {settings.block_trs} TRs make {n_blocks}; {advice}, None, which shuffles phases, or hold out more stories."
    }
