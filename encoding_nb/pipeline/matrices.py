"""Design matrices and responses of a plan: sampled, delayed, trimmed, z-scored per story, stacked."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary
from zlib import crc32

import numpy as np

from .. import _machine, _progress, design, features, scoring
from .._columns import unit_columns
from .._progress import Count
from ..assembly import Array, Story
from ..settings import Settings
from .clock import Clock
from .plan import Plan

# Responses above this share of the free memory go to a temporary file: the fit reads them in tiles.
SHARE_IN_MEMORY = 0.4
MORE_ROOM = "set TMPDIR to a folder on a larger disk, choose fewer stories, or a mask with fewer voxels"
LEAST_REPEATED = 0.5  # of BOLD with the mean of its repeats; BOLD that is one of two repeats of noise has 0.7
MOST_OTHER = 0.25  # of the voxels may correlate less: by chance in a short story
SAMPLED_VOXELS = 500
SLOW_PERIOD, MOST_SLOW = 128.0, 1 / 3  # seconds; share of variance


@dataclass(frozen=True, eq=False)
class DesignMatrices:
    """Training and test rows of a fit.

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
    plan: Plan, sampled: Mapping[str, features.JoinedFeatures] | None = None
) -> DesignMatrices:
    """The rows that a run fits and predicts, in the order of the plan's stories.

    Parameters
    ----------
    plan : Plan
    sampled : {story: its features on the whole TR grid}, optional
        None computes them.

    Raises
    ------
    ValueError
        Values that are not finite: how many, in which columns, of which story.
    """
    if sampled is None:
        sampled = {story.name: sample_story(plan, story) for story in plan.stories}
    X = _stacked_features(plan, sampled, plan.train)
    Y = _training_responses(plan)
    X_test = Y_test = None
    if plan.test:
        X_test = _stacked_features(plan, sampled, plan.test)
        tr = plan.assembly.tr
        Y_test = np.concatenate([response_rows(story, plan.settings, tr, test=True) for story in plan.test])
    return DesignMatrices(X, Y, X_test, Y_test, _space_columns(plan, sampled[plan.train[0].name].widths))


def _space_columns(plan: Plan, widths: Mapping[str, int]) -> dict[str, Array]:
    """{space: numbers of its columns}: all delayed columns of delay 1, then all of delay 2, ..., then the others."""
    n_delays = len(plan.settings.fir_delays)
    delayed = sum(width for name, width in widths.items() if plan.specs[name].delayed)
    start, after, found = 0, n_delays * delayed, {}
    for name, width in widths.items():
        if plan.specs[name].delayed:
            own = np.arange(start, start + width)
            found[name] = np.concatenate([delay * delayed + own for delay in range(n_delays)])
            start += width
        else:
            found[name] = np.arange(after, after + width)
            after += width
    return found


# ---------------------------------------------------------------------- one story


def sample_story(plan: Plan, story: Story, progress: Count | None = None) -> features.JoinedFeatures:
    """Features of a story on its whole TR grid, the columns of all feature spaces next to each other."""
    settings = plan.settings
    options: dict[str, Any] = {
        "window": settings.downsample_window,
        "cutoff_mult": settings.cutoff_mult,
    }
    if plan.split_indices is not None:
        options = {"split_indices": plan.split_indices[story.name]}
    return features.joined_features(
        story,
        plan.specs,
        downsample_method=settings.downsample_method,
        downsample_options=options,
        n_time_columns=plan.n_time_columns,
        first_row=plan.feature_rows[story.name].indices(story.n_trs)[0],
        memory=plan.memory,
        device=settings.device,
        progress=progress,
    )


def story_rows(story: Story, sampled: features.JoinedFeatures, settings: Settings, *, test: bool) -> Array:
    """(rows, n_columns) of a story, from its features on the TR grid: delayed, trimmed, z-scored.

    The delayed columns come first, those of spaces without delays last.

    Raises
    ------
    ValueError
        Values that are not finite: how many, in which columns.
    """
    advice = "check the words there, the extras, or choose another layer"
    _refuse_not_finite(story.name, sampled.values, "features", advice)
    specs = settings.feature_specs
    delayed = np.repeat([specs[name].delayed for name in sampled.widths], list(sampled.widths.values()))
    is_time = np.repeat([name == "time" for name in sampled.widths], list(sampled.widths.values()))
    n_delays = len(settings.fir_delays)
    parts = [sampled.values[:, ~delayed]]
    if delayed.any():
        parts.insert(0, design.add_delays(sampled.values[:, delayed], settings.fir_delays))
    # "time" has columns for the rows of longer stories, and for rows that trimming leaves out
    may_be_empty = np.concatenate([np.tile(is_time[delayed], n_delays), is_time[~delayed]])
    rows = settings.trimming.features(np.hstack(parts), test=test)
    return _standardized(rows, f"{story.name}, features", may_be_empty)


def response_rows(story: Story, settings: Settings, tr: float, *, test: bool) -> Array:
    """(rows, n_voxels) float32 of a story: trimmed, without slow waves, z-scored. Reads its BOLD.

    Raises
    ------
    ValueError
        Values that are not finite: how many, in which voxels.
    """
    bold = np.asarray(settings.trimming.targets(story.bold, test=test), dtype=np.float32)
    _refuse_not_finite(story.name, bold, "voxels", "replace or mask them first")
    if settings.high_pass is not None:
        bold = design.high_pass(bold, tr=tr, period=settings.high_pass)
    return _standardized(bold, f"{story.name}, voxels")


def _standardized(values: Array, what: str, may_be_constant: Array | None = None) -> Array:
    """Each column z-scored over its rows; columns without variance are counted in a warning of the run."""
    scores = design.standardize(values, quiet=True)
    constant = ~scores.any(axis=0)  # a column that varies has scores other than 0
    if may_be_constant is not None:
        constant &= ~may_be_constant
    if constant.any():
        _progress.warn(
            f"{what}: {int(constant.sum())} of {constant.size} columns have no variance and are set to 0."
        )
    return scores


def _refuse_not_finite(story: str, values: Array, what: str, advice: str) -> None:
    # The sum is not finite if a value is not; it also overflows, so then each value is checked.
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


# ---------------------------------------------------------------------- all stories


def story_features(plan: Plan, clock: Clock) -> dict[str, features.JoinedFeatures]:
    """{story: features on its whole TR grid}.

    Stories that are cached take no time: their words do not count towards the rate. Where a language model is
    among the joined spaces, only its words count: the others take no time.
    """
    n_words = {story.name: len(story.words) for story in plan.stories}
    read = {name: 0 if name in plan.missing else count for name, count in n_words.items()}
    sampled: dict[str, features.JoinedFeatures] = {}
    with clock.stage("features"):
        for story in plan.stories:
            progress = _words_done(clock, n_words, read, story.name, finished=list(sampled))
            if "language_model" in plan.specs:
                progress = _only_space(progress, list(plan.specs).index("language_model"), len(plan.specs))
            sampled[story.name] = sample_story(plan, story, progress)
    return sampled


def _words_done(
    clock: Clock, n_words: Mapping[str, int], read: Mapping[str, int], name: str, *, finished: Sequence[str]
) -> Count:
    """Reports progress in one story as words of all stories; `read`: cached words, by story."""
    before, total = sum(n_words[story] for story in finished), sum(n_words.values())
    read_before, all_read = sum(read[story] for story in finished), sum(read.values())

    def tell(done: float, of: float) -> None:
        share = done / max(of, 1)
        at_once = (read_before + read[name] * share, all_read)
        clock.tell(before + n_words[name] * share, total, name, at_once=at_once)

    return tell


def _only_space(progress: Count, number: int, n_spaces: int) -> Count:
    """Reports the progress of one space alone, from that of all spaces, which count the same."""

    def tell(done: float, of: float) -> None:
        progress(min(max(n_spaces * done / max(of, 1) - number, 0.0), 1.0), 1.0)

    return tell


# ---------------------------------------------------------------------- all stories of a part


def _stacked_features(
    plan: Plan, sampled: Mapping[str, features.JoinedFeatures], stories: Sequence[Story]
) -> Array:
    """(n_rows, n_features x n_delays) float32: `story_rows` of the stories, stacked."""
    test = stories is plan.test
    rows = [story_rows(story, sampled[story.name], plan.settings, test=test) for story in stories]
    return np.concatenate(rows, dtype=np.float32)


def _training_responses(plan: Plan) -> Array:
    """(n_rows, n_voxels) float32: `response_rows` of all training stories, stacked.

    Filled story by story, without a second copy; in a temporary file (a memory map) where it is large for this
    machine.
    """
    Y = _responses_array((len(plan.groups), plan.assembly.n_voxels))
    start, slow = 0, {}
    for story in plan.train:
        stop = start + plan.n_kept[story.name]
        Y[start:stop] = response_rows(story, plan.settings, plan.assembly.tr, test=False)
        slow[story.name] = _slow_share(Y[start:stop], plan.assembly.tr)
        start = stop
    if plan.settings.high_pass is None:
        _note_drifts(slow)
    return Y


def _slow_share(rows: Array, tr: float) -> float:
    """Share of the variance of a story's BOLD below 1/128 Hz, in the median of a sample of its voxels."""
    share = design.slow_share(rows[:, :: max(1, rows.shape[1] // SAMPLED_VOXELS)], tr=tr, period=SLOW_PERIOD)
    return float(np.nanmedian(share)) if np.isfinite(share).any() else 0.0


def _note_drifts(slow: Mapping[str, float]) -> None:
    """Warn where much of BOLD's variance is as slow as the drifts of a scanner."""
    typical = float(np.median(list(slow.values())))
    if typical > MOST_SLOW:
        _progress.warn(
            f"{typical:.0%} of the BOLD's variance (median voxel and story) is slower than 1/{SLOW_PERIOD:g} Hz, where "
            f"a scanner's drifts lie: they can be predicted without the story. Set high_pass={SLOW_PERIOD:g} to remove "
            f"them."
        )


def in_memory(shape: tuple[int, int], *, free: int | None = None) -> bool:
    """Whether float32 responses of this shape stay in memory rather than in a temporary file.

    They do where temporary files are in memory themselves (a /tmp that is tmpfs).
    """
    free = _machine.free_memory() if free is None else free
    return 4 * shape[0] * shape[1] <= SHARE_IN_MEMORY * free or _machine.is_memory(tempfile.gettempdir())


def _responses_array(shape: tuple[int, int]) -> Array:
    """An empty float32 array for responses; a memory map of a temporary file where memory is short."""
    if in_memory(shape):
        return np.empty(shape, np.float32)
    # column by column: the fit reads tiles of voxels, which are then contiguous on disk
    return _machine.temporary_array(shape, np.float32, "The responses", MORE_ROOM, order="F")


# ---------------------------------------------------------------------- noise ceilings


# The ceiling depends on the data and the kept rows alone, so a new layer does not need a new one. It takes a quarter
# of the demo's fit. An entry is deleted with its story.
_CEILINGS: WeakKeyDictionary[Story, dict[tuple[Any, ...], tuple[Any, Array, int, str]]] = WeakKeyDictionary()


def story_ceiling(story: Story, kept: slice, *, high_pass: float | None = None, tr: float) -> Array | None:
    """(n_voxels,) noise ceiling over the kept rows of a story; None for a single presentation.

    With `high_pass` (seconds), the repeats are without their slow waves, as BOLD is.

    It is NaN in voxels whose repeats are not finite; these are counted in a warning of the run.
    """
    if story.repeats is None:
        return None
    known = _CEILINGS.setdefault(story, {})
    rows = (*kept.indices(story.n_rows), high_pass)
    # The user may change an array in place; a file is taken to be unchanged.
    mark = crc32(np.ascontiguousarray(story.repeats).data) if type(story.repeats) is np.ndarray else None
    if rows not in known or known[rows][0] != mark:
        repeats = story.repeats[:, kept]
        if high_pass is not None:
            repeats = np.stack([design.high_pass(repeat, tr=tr, period=high_pass) for repeat in repeats])
        ceiling = scoring.noise_ceiling(repeats)
        n_broken = _count_not_finite(repeats, np.isnan(ceiling))
        known[rows] = (mark, ceiling, n_broken, _other_repeats(story, repeats, kept, high_pass, tr))
    _, ceiling, n_broken, other = known[rows]
    if other:
        _progress.warn(other)
    if n_broken:
        _progress.warn(
            f"{story.name}: the repeats of {n_broken} of {ceiling.size} voxels have NaN or infinite values, so these "
            f"voxels have no noise ceiling; replace or mask them first."
        )
    return ceiling


def _other_repeats(story: Story, repeats: Array, kept: slice, period: float | None, tr: float) -> str:
    """What to warn of where BOLD is not the mean of the repeats; "" where it correlates at least as one of two repeats.

    A sample of the voxels suffices; those without variance have no correlation.
    """
    some = slice(None, None, max(1, repeats.shape[2] // SAMPLED_VOXELS))
    mean = np.mean([unit_columns(repeat) for repeat in repeats[:, :, some]], axis=0)
    bold = np.asarray(story.bold[kept], dtype=float)[:, some]
    r = scoring.correlation(mean, bold if period is None else design.high_pass(bold, tr=tr, period=period))
    r = r[np.isfinite(r)]
    if not len(r) or np.mean(r < LEAST_REPEATED) <= MOST_OTHER:
        return ""
    return (
        f"{story.name}: the mean of the repeats correlates with the BOLD by only {np.median(r):.2f} (median voxel; "
        f"below {LEAST_REPEATED:g} in {np.mean(r < LEAST_REPEATED):.0%} of the voxels), so the noise ceiling is not "
        f"that of this BOLD; do both have the same voxels in the same order, the same rows and the same cleaning?"
    )


def _count_not_finite(repeats: Array, doubtful: Array) -> int:
    """How many of the voxels without a ceiling have NaN or infinite values in (n_repeats, n_rows, n_voxels)."""
    with np.errstate(invalid="ignore"):  # infinity minus infinity
        sums = repeats.sum(axis=(0, 1), dtype=np.float64) if doubtful.any() else np.zeros(doubtful.shape)
    return int((~np.isfinite(sums[doubtful])).sum())
