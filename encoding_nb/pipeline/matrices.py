"""The stories of a plan as design matrix and responses: sampled, delayed, trimmed, z-scored, stacked."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from .. import _machine, _progress, design, features, scoring
from .._progress import Count
from ..assembly import Array, Assembly, Story, assembly_digest, fingerprint
from ..settings import Settings
from .plan import Plan

# Responses above this share of the free memory are kept in a temporary file: the fit reads them in tiles.
SHARE_IN_MEMORY = 0.4
# Responses of one fit are kept for the next up to this size, and up to this share of the free memory.
KEPT_BYTES = 500_000_000
KEPT_SHARE = 0.1


@dataclass(frozen=True, eq=False)
class DesignMatrices:
    """Training and test rows of a fit, and whose columns are whose.

    Attributes
    ----------
    X : (n_rows, n_columns) float32
    Y : (n_rows, n_voxels) float32; a memory map where memory is short
    X_test, Y_test : (n_test_rows, n_columns) and (n_test_rows, n_voxels); None with nested cross-validation
    columns : {feature space: (n,) numbers of its columns, over all delays}
    """

    X: Array
    Y: Array
    X_test: Array | None
    Y_test: Array | None
    columns: Mapping[str, Array]


def design_matrices(
    plan: Plan,
    sampled: Mapping[str, features.JoinedFeatures] | None = None,
    inputs: Inputs | None = None,
) -> DesignMatrices:
    """The rows that a run fits and scores, in the order of the plan's stories.

    Parameters
    ----------
    plan : Plan
    sampled : {story: its features on the whole TR grid}, optional
        None computes them.
    inputs : Inputs, optional
        Where they come from.

    Raises
    ------
    ValueError
        Values that are not finite: how many, in which columns, of which story.
    """
    inputs = Inputs() if inputs is None else inputs
    if sampled is None:
        sampled = {story.name: inputs.sampled(plan, story) for story in plan.stories}
    values = {name: joined.values for name, joined in sampled.items()}
    X = inputs.training_features(plan, values)
    Y = inputs.training_responses(plan)
    X_test = Y_test = None
    if plan.test:
        X_test = np.concatenate([story_rows(s, values[s.name], plan.settings, test=True) for s in plan.test])
        Y_test = np.concatenate([inputs.test_responses(plan, story) for story in plan.test])
    widths = sampled[plan.train[0].name].widths
    return DesignMatrices(X, Y, X_test, Y_test, _space_columns(widths, len(plan.settings.fir_delays)))


def _space_columns(widths: Mapping[str, int], n_delays: int) -> dict[str, Array]:
    """{space: numbers of its columns} in a delayed matrix: all columns of delay 1, then all of delay 2, ..."""
    total, start, found = sum(widths.values()), 0, {}
    for name, width in widths.items():
        own = np.arange(start, start + width)
        found[name] = np.concatenate([delay * total + own for delay in range(n_delays)])
        start += width
    return found


# ---------------------------------------------------------------------- one story


def sample_story(plan: Plan, story: Story, progress: Count | None = None) -> features.JoinedFeatures:
    """Features of a story on its whole TR grid, all spaces side by side."""
    settings = plan.settings
    return features.joined_features(
        story,
        plan.specs,
        downsample_method=settings.downsample_method,
        downsample_options={"window": settings.downsample_window, "cutoff_mult": settings.cutoff_mult},
        memory=plan.memory,
        device=settings.device,
        progress=progress,
    )


def story_rows(story: Story, sampled: Array, settings: Settings, *, test: bool) -> Array:
    """(rows, n_features x n_delays) of a story, from its (n_trs, n_features): delayed, trimmed, z-scored.

    Raises
    ------
    ValueError
        Values that are not finite: how many, in which columns.
    """
    _refuse_not_finite(story.name, sampled, "features", "look at the words there, or choose another layer")
    delayed = design.add_delays(sampled, settings.fir_delays)
    return _standardized(settings.trimming.features(delayed, test=test), f"{story.name}, features")


def response_rows(story: Story, trimming: design.Trimming, *, test: bool) -> Array:
    """(rows, n_voxels) float32 of a story: trimmed, z-scored. Reads its BOLD.

    Raises
    ------
    ValueError
        Values that are not finite: how many, in which voxels.
    """
    bold = np.asarray(trimming.targets(story.bold, test=test), dtype=np.float32)
    _refuse_not_finite(story.name, bold, "voxels", "replace or mask them first")
    return _standardized(bold, f"{story.name}, voxels")


def _standardized(values: Array, what: str) -> Array:
    """Each column z-scored over its rows; those without variance are counted in a note of the run."""
    scores = design.standardize(values, quiet=True)
    constant = ~scores.any(axis=0)  # a column that varies has scores other than 0
    if constant.any():
        _progress.warn(
            f"{what}: {int(constant.sum())} of {constant.size} columns have no variance and become 0."
        )
    return scores


def _refuse_not_finite(story: str, values: Array, what: str, advice: str) -> None:
    # A sum is finite when its terms are, but for an overflow: only then is each value looked at.
    if np.isfinite(values.sum(dtype=np.float64)):
        return
    bad = ~np.isfinite(values)
    columns = np.flatnonzero(bad.any(axis=0))
    if len(columns):
        first = ", ".join(map(str, columns[:5])) + (", ..." if len(columns) > 5 else "")
        raise ValueError(
            f"{story}: {bad.sum()} NaN or infinite values in {len(columns)} of {bad.shape[1]} {what} "
            f"(numbers {first}); {advice}."
        )


# ---------------------------------------------------------------------- all training stories


def training_features(plan: Plan, sampled: Mapping[str, Array]) -> Array:
    """(n_rows, n_features x n_delays) float32: `story_rows` of all training stories below each other."""
    rows = [story_rows(s, sampled[s.name], plan.settings, test=False) for s in plan.train]
    return np.concatenate(rows, dtype=np.float32)


def training_responses(plan: Plan) -> Array:
    """(n_rows, n_voxels) float32: `response_rows` of all training stories below each other.

    Filled story by story, so that no second copy is held; in a temporary file (a memory map) where it is large for
    this machine.
    """
    Y = responses_array((len(plan.groups), plan.assembly.n_voxels))
    for story, rows in zip(plan.train, _spans(plan), strict=True):
        Y[rows] = response_rows(story, plan.settings.trimming, test=False)
    return Y


def _spans(plan: Plan) -> list[slice]:
    """Where each training story's rows are in X and Y."""
    counts = [plan.n_kept[story.name] for story in plan.train]
    return [
        slice(int(stop) - count, int(stop)) for stop, count in zip(np.cumsum(counts), counts, strict=True)
    ]


def in_memory(shape: tuple[int, int], *, free: int | None = None) -> bool:
    """Whether float32 responses of this shape are held in memory rather than in a temporary file."""
    free = _machine.free_memory() if free is None else free
    return 4 * shape[0] * shape[1] <= SHARE_IN_MEMORY * free


def responses_array(shape: tuple[int, int]) -> Array:
    """An empty float32 array for responses; a memory map of a temporary file where memory is short."""
    if in_memory(shape):
        return np.empty(shape, np.float32)
    with tempfile.TemporaryFile(prefix="encoding_nb-") as file:
        # by columns, as the fit reads it: tiles of voxels then lie together on the disk
        return np.memmap(file, dtype=np.float32, mode="w+", shape=shape, order="F")


# ---------------------------------------------------------------------- noise ceilings


# The ceiling follows from the data and the kept rows alone, so a class that moves the layer's slider does
# not need it again; an entry goes with its story.
_CEILINGS: WeakKeyDictionary[Story, dict[tuple[int, int, int], tuple[Any, Array, int]]] = WeakKeyDictionary()


def story_ceiling(story: Story, kept: slice) -> Array | None:
    """(n_voxels,) noise ceiling over the kept rows of a story; None where it was heard once.

    Voxels whose repeats are not finite have none; they are counted in a note of the run.
    """
    if story.repeats is None:
        return None
    known = _CEILINGS.setdefault(story, {})
    rows = kept.indices(story.n_rows)
    # An array may be changed in place; a file that is read is taken to be as it was.
    mark = fingerprint(story.repeats) if type(story.repeats) is np.ndarray else None
    if rows not in known or known[rows][0] != mark:
        repeats = story.repeats[:, kept]
        ceiling = scoring.noise_ceiling(repeats)
        known[rows] = (mark, ceiling, _count_not_finite(repeats, np.isnan(ceiling)))
    _, ceiling, n_broken = known[rows]
    if n_broken:
        _progress.warn(
            f"{story.name}: the repeats of {n_broken} of {ceiling.size} voxels hold NaN or infinite values, so these "
            f"voxels have no noise ceiling; replace or mask them first."
        )
    return ceiling


def _count_not_finite(repeats: Array, doubtful: Array) -> int:
    """How many of the doubtful voxels hold NaN or infinite values in (n_repeats, n_rows, n_voxels)."""
    with np.errstate(invalid="ignore"):  # infinity minus infinity
        sums = repeats.sum(axis=(0, 1), dtype=np.float64) if doubtful.any() else np.zeros(doubtful.shape)
    return int((~np.isfinite(sums[doubtful])).sum())


# ---------------------------------------------------------------------- where a run takes its parts from


class Inputs:
    """Where a run takes its parts from: here each is made when it is asked for.

    A sweep gives `run` one that keeps what its runs have in common, the panel `KeptResponses`.
    """

    def sampled(self, plan: Plan, story: Story, progress: Count | None = None) -> features.JoinedFeatures:
        """See `sample_story`."""
        return sample_story(plan, story, progress)

    def training_features(self, plan: Plan, sampled: Mapping[str, Array]) -> Array:
        """See the function of this name."""
        return training_features(plan, sampled)

    def training_responses(self, plan: Plan) -> Any:
        """See the function of this name; may be anything with `.shape`, `[:, start:stop]` and `[row mask]`."""
        return training_responses(plan)

    def test_responses(self, plan: Plan, story: Story) -> Array:
        """(rows, n_voxels) of a test story, see `response_rows`."""
        return response_rows(story, plan.settings.trimming, test=True)

    def derived(self, X: Array) -> dict[str, Any] | None:
        """What fits of this X, as `training_features` gave it, leave for each other; see `ridge.ridge_cv`."""
        return None

    def forget(self) -> bool:
        """Let go of what earlier runs have left, where memory is short; False where nothing was."""
        return False

    def data_digest(self, assembly: Assembly) -> str | None:
        """See `assembly_digest`; None where some data cannot be read, with a note."""
        try:
            return assembly_digest(assembly)
        except Exception as error:  # noqa: BLE001 - of whatever the data lie in, maybe of a story with no part here
            _progress.warn(f"The result is without a digest of its data ({error}).")
            return None

    def noise_ceiling(self, story: Story, kept: slice) -> Array | None:
        """See `story_ceiling`."""
        return story_ceiling(story, kept)


@dataclass(frozen=True)
class _Kept:
    """One story's z-scored responses: what they were made of, where they are in Y, and the notes on the way."""

    of: tuple
    rows: slice
    notes: tuple[str, ...]


class KeptResponses(Inputs):
    """Keeps the last fit's z-scored training responses, by story, for the next fit.

    They are used only while a digest of the story's BOLD in memory is the same, so a change of the array is seen.
    For one run at a time.
    """

    def __init__(self) -> None:
        # Y and what its rows are, in one tuple: another thread may call `forget` at any time
        self._last: tuple[Array | None, dict[str, _Kept]] = (None, {})

    def training_responses(self, plan: Plan) -> Array:
        """See `training_responses`; rows of stories that have not changed are those of the last fit."""
        arrays = [story.bold for story in plan.train]
        limit = min(KEPT_BYTES, KEPT_SHARE * _machine.free_memory())
        size = 4 * len(plan.groups) * plan.assembly.n_voxels
        if size > limit or any(type(array) is not np.ndarray for array in arrays):
            self.forget()
            return training_responses(plan)
        Y, known = self._last
        made = {
            story.name: (story.bold.shape, plan.bold_rows[story.name], fingerprint(story.bold))
            for story in plan.train
        }
        spans = dict(zip(made, _spans(plan), strict=True))
        fresh = [name for name, of in made.items() if name not in known or known[name].of != of]
        if fresh or spans != {name: kept.rows for name, kept in known.items()}:
            self.forget()
            if len(fresh) == len(made):
                Y = None  # freed before the next is made
            Y, known = self._last = _stacked(plan, made, spans, Y, known, fresh)
        for name, kept in known.items():
            for sentence in kept.notes:
                (_progress.hear if name in fresh else _progress.warn)(sentence)
        return Y

    def forget(self) -> bool:
        """Let go of them; False where there are none."""
        had = self._last[0] is not None
        self._last = (None, {})
        return had


def _stacked(
    plan: Plan,
    made: Mapping[str, tuple],
    spans: Mapping[str, slice],
    old: Array | None,
    known: Mapping[str, _Kept],
    fresh: Sequence[str],
) -> tuple[Array, dict[str, _Kept]]:
    """Y, from rows of the old one but for the `fresh` stories, and what its rows are."""
    Y = np.empty((len(plan.groups), plan.assembly.n_voxels), np.float32)
    stories = {}
    for story in plan.train:
        name, notes = story.name, []
        if name in fresh:
            with _progress.listening(notes):
                Y[spans[name]] = response_rows(story, plan.settings.trimming, test=False)
        else:
            Y[spans[name]] = old[known[name].rows]
            notes = known[name].notes
        stories[name] = _Kept(made[name], spans[name], tuple(notes))
    return Y, stories
