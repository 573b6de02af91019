"""One fit, from words and BOLD to scores per voxel: the order of the stages."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from .. import _progress, ridge, scoring
from .._columns import slabs
from .._progress import Progress
from ..assembly import Array, Assembly, assembly_digest, check_assembly
from ..settings import Settings, SettingsError, check_settings
from .clock import Clock
from .estimates import refuse_too_large
from .matrices import DesignMatrices, design_matrices, story_ceiling, story_features
from .plan import Plan, plan_run
from .result import Result, provenance
from .shifts import add_shift_test, fit_nested, plan_shifts, ridge_options

ENOUGH_PERMUTATIONS = 1000


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
        moves = plan_shifts(plan) if settings.significance == "shift" else None
        clock = Clock(tell, _shares(plan))
        sampled = story_features(plan, clock)
        with clock.stage("design"):
            clock.tell(0, 1, "design matrix")
            data = design_matrices(plan, sampled)
        with clock.stage("ridge"):
            held_out = fit_ridge(plan, data, clock)
        if moves is None:
            del data, sampled  # the training responses are most of a run's memory
        with clock.stage("scores"):
            result = score(plan, held_out, clock)
            if moves is not None:
                result = add_shift_test(plan, result, data, moves, clock)
                _note_end_of_grid(held_out.best_alphas, result.significant, settings.alpha_grid)
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
        story_ceiling(story, plan.bold_rows[story.name], high_pass=settings.high_pass, tr=plan.assembly.tr)


def _note_unused(settings: Settings) -> None:
    if settings.test_stories is not None and not settings.use_train_test_split:
        _progress.warn(
            f"test_stories ({', '.join(settings.test_stories) or 'none'}) are not used: with "
            f"use_train_test_split=False all rows are held out in turn, see outer_folding_type.",
            stacklevel=3,
        )
    permutes = settings.significance == "permutation" and settings.use_train_test_split
    if permutes and settings.n_permutations < ENOUGH_PERMUTATIONS:
        _progress.warn(
            f"{settings.n_permutations} permutations make p-values coarse; n_permutations={ENOUGH_PERMUTATIONS} or "
            f"more are usual.",
            stacklevel=3,
        )


def _shares(plan: Plan) -> dict[str, float]:
    """The approximate share of a run's time that each stage takes."""
    return {
        "features": 5.0 if plan.missing else 0.2,
        "design": 0.2,
        "ridge": 1.0,
        "scores": {"permutation": 2.0 if plan.test else 0.2, "parametric": 0.2}.get(
            plan.settings.significance, 0.02 * plan.settings.n_shifts
        ),
    }


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Predictions of rows that were not fitted.

    Attributes
    ----------
    best_alphas : (n_voxels,), or (n_outer_folds, n_voxels)
    predictions, measured : (n_held_out_rows, n_voxels), the stories' rows stacked
    rows : {story: numbers of these rows among its kept rows}
    scores : (n_voxels,), correlations; of nested cross-validation, means over its outer folds
    folds : {story: (rows,)}, which outer fold held out each of these rows; empty with test stories
    """

    best_alphas: Array
    predictions: Array
    measured: Array
    rows: Mapping[str, Array]
    scores: Array
    folds: Mapping[str, Array] = field(default_factory=dict)


def fit_ridge(plan: Plan, data: DesignMatrices, clock: Clock) -> HeldOut:
    """Fit the training rows; predict the test stories, or each row by the outer fold that does not train on it."""
    if plan.test:
        fitted = ridge.ridge_cv(
            data.X,
            data.Y,
            X_test=data.X_test,
            folds=plan.inner_folds[0],
            progress=clock.count("one alpha per voxel"),
            **ridge_options(plan.settings),
        )
        rows = {story.name: np.arange(plan.n_kept[story.name]) for story in plan.test}
        scores = scoring.correlation(data.Y_test, fitted.predictions)
        return HeldOut(fitted.best_alphas, fitted.predictions, data.Y_test, rows, scores)
    count = clock.count("nested cross-validation")
    nested = fit_nested(plan, data.X, data.Y, restore=False, progress=count)
    # With trimmed folds and time series, some rows are in no test set.
    fold_of = np.full(len(plan.groups), -1)
    for number, fold in enumerate(plan.outer_folds):
        fold_of[fold.test] = number
    scored = fold_of >= 0
    rows, folds = {}, {}
    for number, story in enumerate(plan.train):
        of_story = fold_of[plan.groups == number]
        rows[story.name] = np.flatnonzero(of_story >= 0)
        folds[story.name] = of_story[rows[story.name]]
    predictions = nested.predictions if scored.all() else nested.predictions[scored]
    return HeldOut(nested.fold_alphas, predictions, _measured(plan, data.Y), rows, nested.correlations, folds)


def _measured(plan: Plan, Y: Array) -> Array:
    """(n_held_out_rows, n_voxels) BOLD, each row as the outer fold that holds it out z-scores it."""
    tests = np.sort(np.concatenate([fold.test for fold in plan.outer_folds]))
    measured = np.empty((len(tests), Y.shape[1]), np.float32)
    for fold in plan.outer_folds:
        held = ridge.RowsOf(Y, fold.test, ridge.fold_parts(fold.train, len(Y), plan.groups))
        for voxels in slabs(Y.shape):
            measured[np.searchsorted(tests, fold.test), voxels] = held[:, voxels]
    return measured


def score(plan: Plan, held_out: HeldOut, clock: Clock) -> Result:
    """Correlations, p-values, noise ceilings and metrics of held-out predictions."""
    settings, assembly = plan.settings, plan.assembly
    Y, Y_hat, scores = held_out.measured, held_out.predictions, held_out.scores
    clock.tell(0, 1, "correlations and noise ceiling")
    pvalues = _pvalues(plan, held_out, clock)
    significant = None if pvalues is None else scoring.fdr(pvalues, q=settings.fdr_q)[0]
    _note_held_out(plan)
    _note_end_of_grid(held_out.best_alphas, significant, settings.alpha_grid)
    names = list(held_out.rows)
    stops = np.cumsum([len(rows) for rows in held_out.rows.values()])[:-1]
    measured = dict(zip(names, np.split(Y, stops), strict=True))
    predictions = dict(zip(names, np.split(Y_hat, stops), strict=True))
    stories = {name: assembly.stories[name] for name in names}
    ceilings = {
        name: ceiling
        for name, story in stories.items()
        if (
            ceiling := story_ceiling(
                story, plan.bold_rows[name], high_pass=settings.high_pass, tr=assembly.tr
            )
        )
        is not None
    }
    return Result(
        settings=settings,
        scores=scores,
        story_scores={
            name: scoring.fold_correlation(measured[name], predictions[name], held_out.folds.get(name))
            for name in names
        },
        best_alphas=held_out.best_alphas,
        pvalues=pvalues,
        significant=significant,
        noise_ceiling=np.mean(list(ceilings.values()), axis=0) if ceilings else None,
        story_noise_ceiling=ceilings,
        story_chance_ceiling={
            name: scoring.ceiling_by_chance(
                stories[name].repeats.shape[0],
                len(measured[name]),
                autocorrelation=scoring.autocorrelation(measured[name]),
            )
            for name in ceilings
        },
        predictions=predictions,
        measured=measured,
        row_times={
            name: story.tr_times[plan.feature_rows[name]][held_out.rows[name]]
            for name, story in stories.items()
        },
        row_folds=held_out.folds,
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


def _pvalues(plan: Plan, held_out: HeldOut, clock: Clock) -> Array | None:
    """P-values by the settings' test; None where there is none, or where shifts come after.

    Each fold of nested cross-validation is predicted from the BOLD of the others, so that a finished prediction is tied
    to the measurement however it is permuted; only another fit shows what chance gives.
    """
    settings, scores = plan.settings, held_out.scores
    Y, Y_hat = held_out.measured, held_out.predictions
    if settings.significance == "parametric":
        return scoring.correlation_pvalues(scores, len(Y), alternative=settings.alternative)
    if settings.significance == "shift" or not plan.test:
        return None
    at_once = scoring.correlation_pvalues(scores, len(Y), alternative=settings.alternative)
    provisional = scoring.fdr(at_once, q=settings.fdr_q)[0]
    clock.tell(0, 1, "permutation test", scores=scores, significant=provisional)
    return scoring.permutation_pvalues(
        Y,
        Y_hat,
        block_trs=settings.block_trs,
        n_permutations=settings.n_permutations,
        seed=settings.seed,
        alternative=settings.alternative,
        tail="t",
        progress=clock.count("permutation test"),
    )


def _note_held_out(plan: Plan) -> None:
    """Say what a nested run holds out, and what its p-values are worth."""
    settings = plan.settings
    if plan.test:
        return
    kind, n_folds, gap = settings.outer_folds_of(len(plan.train))
    what = "whole stories" if kind == "group" else f"stretches of rows (folds of type {kind!r})"
    around = f", with {gap:g} s on both sides that the fold does not train on" if gap else ""
    _progress.warn(
        f"Nested cross-validation in {n_folds} folds holds out {what}{around}; the score is the mean over the folds.",
        stacklevel=3,
    )
    if settings.significance == "permutation":
        _progress.warn(
            "There are no p-values: predictions of nested cross-validation are made from the BOLD of other folds, so "
            'permuting them finds too many voxels. significance="shift" repeats the fit with shifted BOLD.',
            stacklevel=3,
        )
    elif settings.significance == "parametric":
        _progress.warn(
            "The p-values assume white noise: for nested cross-validation of BOLD, which is autocorrelated, they find "
            'far too many voxels. significance="shift" repeats the fit with shifted BOLD.',
            stacklevel=3,
        )


def _note_end_of_grid(best_alphas: Array, significant: Array | None, grid: Sequence[float]) -> None:
    """Warn where more than half of the significant voxels (folds of them, if nested) take an end of the alpha grid."""
    if significant is None or len(grid) < 2 or not significant.any():
        return
    chosen = np.atleast_2d(best_alphas)[:, significant]
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
