"""One fit, from words and BOLD to scores per voxel: the order of the stages."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .. import _progress, features, ridge, scoring
from .._progress import Count, Progress
from ..assembly import Array, Assembly, assembly_digest, check_assembly
from ..settings import Settings, SettingsError, check_settings
from .clock import Clock
from .estimates import refuse_too_large
from .matrices import DesignMatrices, design_matrices, sample_story, story_ceiling
from .plan import Plan, plan_run
from .result import Result, provenance


def run(
    assembly: Assembly,
    settings: Settings,
    *,
    memory: Any = None,
    inner_folds: Sequence[ridge.Fold] | None = None,
    split_indices: Mapping[str, Array] | None = None,
    progress: bool | Callable[[Progress], None] = True,
) -> Result:
    """Fit and score.

    Parameters
    ----------
    assembly, settings
    memory : joblib.Memory or path, optional
        Cache of activations; None takes `features.default_memory()`.
    inner_folds : pairs of (train, test) row numbers, optional
        Over the kept rows of the training stories, stacked, instead of the folds that the settings give.
        Only with a train/test split.
    split_indices : {story: (n_trs - 1,)}, optional
        The first word of each TR but the first, for downsampling methods that average over the words of a TR; by
        default a word belongs to the TR nearest its middle.
    progress : bool or function
        True shows a bar on standard error. A function is called with each `Progress`, in this thread. To cancel the
        run, raise `Cancelled` from it.

    Returns
    -------
    Result

    Raises
    ------
    SettingsError
        Before any work, when `check` finds a problem or the run needs more memory than is free.
    ValueError
        Before any work: given folds that do not fit the rows. While stories are read: BOLD that is not finite, with
        the story's name.
    TypeError
        `assembly` is not an Assembly, or `settings` not a Settings.
    """
    check_assembly(assembly, "run")
    check_settings(settings, "run")
    notes: list[str] = []
    with _progress.shown(progress) as tell, _progress.listening(notes):
        plan = plan_run(
            assembly, settings, memory=memory, inner_folds=inner_folds, split_indices=split_indices
        )
        _note_unused(settings)
        refuse_too_large(plan)
        clock = Clock(tell, _shares(plan))
        sampled = story_features(plan, clock)
        with clock.stage("design"):
            clock.tell(0, 1, "design matrix")
            data = design_matrices(plan, sampled)
        with clock.stage("ridge"):
            held_out = fit_ridge(plan, data, clock)
        del data, sampled  # the training responses are most of a run's memory
        with clock.stage("scores"):
            result = score(plan, held_out, clock)
    return replace(result, notes=tuple(notes))


def prepare(assembly: Assembly, settings: Settings, *, memory: Any = None) -> None:
    """Load the tokenizer and compute the noise ceilings, which all runs on these data share.

    Does nothing for settings that `check` finds a problem with.
    """
    try:
        plan = plan_run(assembly, settings, memory=memory)
    except SettingsError:
        return
    _ = plan.lacking  # reads the tokenizer
    for story in plan.test or plan.train:
        story_ceiling(story, plan.bold_rows[story.name])


def _note_unused(settings: Settings) -> None:
    if settings.test_stories is not None and not settings.use_train_test_split:
        _progress.warn(
            f"test_stories ({', '.join(settings.test_stories) or 'none'}) are not used: with "
            f"use_train_test_split=False every story is held out in turn.",
            stacklevel=3,
        )


def _shares(plan: Plan) -> dict[str, float]:
    """The approximate share of a run's time that each stage takes."""
    return {
        "features": 5.0 if plan.missing else 0.2,
        "design": 0.2,
        "ridge": 1.0,
        "scores": 2.0 if plan.settings.significance == "permutation" else 0.2,
    }


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


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Predictions of rows that were not fitted.

    Attributes
    ----------
    best_alphas : (n_voxels,), or (n_outer_folds, n_voxels)
    predictions, measured : (n_held_out_rows, n_voxels), the stories' rows stacked
    rows : {story: numbers of these rows among its kept rows}
    """

    best_alphas: Array
    predictions: Array
    measured: Array
    rows: Mapping[str, Array]


def fit_ridge(plan: Plan, data: DesignMatrices, clock: Clock) -> HeldOut:
    """Fit the training rows; predict the test stories, or each row by the outer fold that does not train on it."""
    settings = plan.settings
    options: dict[str, Any] = {
        "alphas": settings.alpha_grid,
        "single_alpha": settings.single_alpha,
        "use_corr": settings.use_corr,
        "normalpha": settings.normalpha,
        "prediction_floor": settings.prediction_floor,
        "device": "cuda" if settings.device == "cuda" else "cpu",
    }
    if plan.test:
        fitted = ridge.ridge_cv(
            data.X,
            data.Y,
            X_test=data.X_test,
            folds=plan.inner_folds[0],
            progress=clock.count("one alpha per voxel"),
            **options,
        )
        rows = {story.name: np.arange(plan.n_kept[story.name]) for story in plan.test}
        return HeldOut(fitted.best_alphas, fitted.predictions, data.Y_test, rows)
    nested = ridge.nested_cv(
        data.X,
        data.Y,
        outer_folds=plan.outer_folds,
        inner_folds=plan.inner_folds,
        progress=clock.count("nested cross-validation"),
        **options,
    )
    # With trimmed folds and time series, some rows are in no test set.
    scored = np.zeros(len(plan.groups), dtype=bool)
    scored[np.concatenate([fold.test for fold in plan.outer_folds])] = True
    rows = {
        story.name: np.flatnonzero(scored[plan.groups == number]) for number, story in enumerate(plan.train)
    }
    predictions = nested.predictions if scored.all() else nested.predictions[scored]
    return HeldOut(nested.fold_alphas, predictions, data.Y[scored], rows)


def score(plan: Plan, held_out: HeldOut, clock: Clock) -> Result:
    """Correlations, p-values, noise ceilings and metrics of held-out predictions."""
    settings, assembly = plan.settings, plan.assembly
    Y, Y_hat = held_out.measured, held_out.predictions
    clock.tell(0, 1, "correlations and noise ceiling")
    scores = scoring.correlation(Y, Y_hat)
    pvalues = scoring.correlation_pvalues(scores, len(Y), alternative=settings.alternative)
    significant, _ = scoring.fdr(pvalues, q=settings.fdr_q)
    if settings.significance == "permutation":
        clock.tell(0, 1, "permutation test", scores=scores, significant=significant)
        pvalues = scoring.permutation_pvalues(
            Y,
            Y_hat,
            block_trs=settings.block_trs,
            n_permutations=settings.n_permutations,
            seed=settings.seed,
            alternative=settings.alternative,
            tail="normal",
            progress=clock.count("permutation test"),
        )
        significant, _ = scoring.fdr(pvalues, q=settings.fdr_q)
    _note_end_of_grid(held_out.best_alphas, significant, settings.alpha_grid)
    names = list(held_out.rows)
    stops = np.cumsum([len(rows) for rows in held_out.rows.values()])[:-1]
    measured = dict(zip(names, np.split(Y, stops), strict=True))
    predictions = dict(zip(names, np.split(Y_hat, stops), strict=True))
    stories = {name: assembly.stories[name] for name in names}
    ceilings = {
        name: ceiling
        for name, story in stories.items()
        if (ceiling := story_ceiling(story, plan.bold_rows[name])) is not None
    }
    return Result(
        settings=settings,
        scores=scores,
        story_scores={name: scoring.correlation(measured[name], predictions[name]) for name in names},
        best_alphas=held_out.best_alphas,
        pvalues=pvalues,
        significant=significant,
        noise_ceiling=np.mean(list(ceilings.values()), axis=0) if ceilings else None,
        story_noise_ceiling=ceilings,
        predictions=predictions,
        measured=measured,
        row_times={
            name: story.tr_times[plan.feature_rows[name]][held_out.rows[name]]
            for name, story in stories.items()
        },
        metrics={
            **scoring.summarise(scores, significant),
            **scoring.region_metrics(scores, significant, assembly.rois),
        },
        provenance=provenance(clock.so_far()) | {"data_digest": _data_digest(assembly)},
        subject=assembly.subject,
        surface=assembly.surface,
        rois=assembly.rois,
        voxel_names=assembly.voxel_names,
        simulated=assembly.simulated,
    )


def _note_end_of_grid(best_alphas: Array, significant: Array, grid: Sequence[float]) -> None:
    """Warn where more than half of the significant voxels (folds of them, if nested) take an end of the alpha grid."""
    chosen = np.atleast_2d(best_alphas)[:, significant]
    if len(grid) < 2 or not chosen.size:
        return
    for end, name, beyond in ((min(grid), "smallest", "smaller"), (max(grid), "largest", "larger")):
        share = float(np.isclose(chosen, end, rtol=1e-5).mean())
        if share > 0.5:
            voxels = f"{int(significant.sum()):,} significant voxel{'s' if significant.sum() > 1 else ''}"
            _progress.warn(
                f"The {name} alpha of the grid, {end:g}, is the choice in {share:.0%} of {voxels}: a {beyond} one may "
                f"predict better, so extend alphas there."
            )


def _data_digest(assembly: Assembly) -> str | None:
    """See `assembly_digest`; None where some data cannot be read, with a note."""
    try:
        return assembly_digest(assembly)
    except Exception as error:  # noqa: BLE001 - whatever reading a file raises, perhaps of a story not in this run
        _progress.warn(f"The result has no digest of its data: they cannot all be read ({error}).")
        return None
