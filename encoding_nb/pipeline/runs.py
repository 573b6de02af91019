"""One fit, from words and BOLD to scores per voxel: the order of the stages is written here, once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .. import _progress, features, ridge, scoring
from .._progress import Count, Progress
from ..assembly import Array, Assembly, require_assembly
from ..settings import Settings, SettingsError, require_settings
from .clock import Clock
from .estimates import refuse_too_large
from .matrices import DesignMatrices, Inputs, design_matrices, story_ceiling
from .plan import Plan, plan_run
from .result import Result, provenance


def run(
    assembly: Assembly,
    settings: Settings,
    *,
    memory: Any = None,
    inner_folds: Sequence[ridge.Fold] | None = None,
    inputs: Inputs | None = None,
    progress: bool | Callable[[Progress], None] = True,
) -> Result:
    """Fit and score.

    Parameters
    ----------
    assembly, settings
    memory : joblib.Memory or path, optional
        Where activations are kept; None takes `features.default_memory()`.
    inner_folds : pairs of (train, test) row numbers, optional
        Over the training stories' kept rows below each other, in place of those that the settings make.
        Only with a train/test split.
    inputs : Inputs, optional
        Where features, responses and noise ceilings come from: a sweep gives one that its runs share, the panel
        `KeptResponses`, which keep responses for the next run.
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
        Before any work: given folds that do not fit the rows. Later: BOLD that is not finite, naming the
        story.
    TypeError
        No Assembly, or no Settings, such as a mapping of them.
    """
    require_assembly(assembly, "run")
    require_settings(settings, "run")
    notes: list[str] = []
    inputs = Inputs() if inputs is None else inputs
    with _progress.shown(progress) as tell, _progress.listening(notes):
        plan = plan_run(assembly, settings, memory=memory, inner_folds=inner_folds)
        _note_unused(settings)
        refuse_too_large(plan, inputs)
        clock = Clock(tell, _shares(plan))
        sampled = story_features(plan, inputs, clock)
        with clock.stage("design"):
            clock.tell(0, 1, "design matrix")
            data = design_matrices(plan, sampled, inputs)
        with clock.stage("ridge"):
            held_out = fit_ridge(plan, data, inputs, clock)
        del data, sampled  # the training responses are most of a run's memory
        with clock.stage("scores"):
            result = score(plan, held_out, inputs, clock)
    return replace(result, notes=tuple(notes))


def prepare(assembly: Assembly, settings: Settings, *, memory: Any = None) -> None:
    """Do what every run on these data needs once: tokenizer and noise ceilings. Quiet where `check` objects."""
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
    """What part of a run's time each stage takes, about."""
    return {
        "features": 5.0 if plan.missing else 0.2,
        "design": 0.2,
        "ridge": 1.0,
        "scores": 2.0 if plan.settings.significance == "permutation" else 0.2,
    }


def story_features(plan: Plan, inputs: Inputs, clock: Clock) -> dict[str, features.JoinedFeatures]:
    """{story: features on its whole TR grid}.

    Stories that are cached are read at once: their words say nothing of the rate.
    """
    n_words = {story.name: len(story.words) for story in plan.stories}
    read = {name: 0 if name in plan.missing else count for name, count in n_words.items()}
    sampled: dict[str, features.JoinedFeatures] = {}
    with clock.stage("features"):
        for story in plan.stories:
            progress = _words_done(clock, n_words, read, story.name, finished=list(sampled))
            sampled[story.name] = inputs.sampled(plan, story, progress)
    return sampled


def _words_done(
    clock: Clock, n_words: Mapping[str, int], read: Mapping[str, int], name: str, *, finished: Sequence[str]
) -> Count:
    """Tells progress in one story as words of all stories; `read`: those that are cached, by story."""
    before, total = sum(n_words[story] for story in finished), sum(n_words.values())
    read_before, all_read = sum(read[story] for story in finished), sum(read.values())

    def tell(done: int, of: int) -> None:
        share = done / max(of, 1)
        at_once = (read_before + read[name] * share, all_read)
        clock.tell(before + n_words[name] * share, total, name, at_once=at_once)

    return tell


@dataclass(frozen=True, eq=False)
class HeldOut:
    """What was predicted without having been fitted.

    Attributes
    ----------
    best_alphas : (n_voxels,), or (n_outer_folds, n_voxels)
    predictions, measured : (n_held_out_rows, n_voxels), the stories' rows below each other
    rows : {story: which of its kept rows these are}
    """

    best_alphas: Array
    predictions: Array
    measured: Array
    rows: Mapping[str, Array]


def fit_ridge(plan: Plan, data: DesignMatrices, inputs: Inputs, clock: Clock) -> HeldOut:
    """Fit the training rows; predict the test stories, or every row from outer folds that do not hold it."""
    settings = plan.settings
    options = {
        "alphas": settings.alphas,
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
            derived=inputs.derived(data.X),
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
    # Trimmed foldings and time series leave rows that no fold scores.
    scored = np.zeros(len(plan.groups), dtype=bool)
    scored[np.concatenate([fold.test for fold in plan.outer_folds])] = True
    rows = {
        story.name: np.flatnonzero(scored[plan.groups == number]) for number, story in enumerate(plan.train)
    }
    predictions = nested.predictions if scored.all() else nested.predictions[scored]
    return HeldOut(nested.fold_alphas, predictions, data.Y[scored], rows)


def score(plan: Plan, held_out: HeldOut, inputs: Inputs, clock: Clock) -> Result:
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
    names = list(held_out.rows)
    stops = np.cumsum([len(rows) for rows in held_out.rows.values()])[:-1]
    measured = dict(zip(names, np.split(Y, stops), strict=True))
    predictions = dict(zip(names, np.split(Y_hat, stops), strict=True))
    stories = {name: assembly.stories[name] for name in names}
    ceilings = {name: inputs.noise_ceiling(story, plan.bold_rows[name]) for name, story in stories.items()}
    ceilings = {name: ceiling for name, ceiling in ceilings.items() if ceiling is not None}
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
        provenance=provenance(clock.so_far()) | {"data_digest": inputs.data_digest(assembly)},
        subject=assembly.subject,
        surface=assembly.surface,
        rois=assembly.rois,
        voxel_names=assembly.voxel_names,
        simulated=assembly.simulated,
    )
