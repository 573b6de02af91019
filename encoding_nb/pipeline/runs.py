"""One fit, from words and BOLD to scores per voxel: the order of the stages is written here, once.

The panel, a notebook cell, the command line and a sweep all call `run_steps` (or `run`, which
drains it). It is a generator: whoever drains it may stop between any two steps.

It stands above both the pipeline, which knows nothing of records, and the records, which are made of results.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .. import _progress, features, ridge, scoring
from .._progress import Progress
from ..assembly import Array, Assembly, require_assembly
from ..settings import Settings, SettingsError, require_settings
from . import estimates, matrices
from .clock import Clock
from .plan import Split, inner_folds, refuse, split_stories, story_numbers
from .result import Result, _provenance


def run_steps(
    assembly: Assembly,
    settings: Settings,
    *,
    memory: Any = None,
    inner_folds: Sequence[ridge.Fold] | None = None,
    inputs: matrices.Inputs | None = None,
) -> Generator[Progress, None, Result]:
    """Fit and score, as a generator that yields `Progress` and returns the `Result`.

    Parameters
    ----------
    assembly, settings
    memory : joblib.Memory, optional
        Where activations are kept; None takes `activations.default_memory()`.
    inner_folds : pairs of (train, test) row numbers, optional
        Over the training stories' kept rows below each other, in place of those that the settings make.
        Only with a train/test split.
    inputs : matrices.Inputs, optional
        Where features, responses and noise ceilings come from: a sweep gives one that its runs share, the panel
        `KeptInputs`, which leave for the next run what it will find the same.

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
    require_assembly(assembly, "run_steps")
    require_settings(settings, "run_steps")
    heard: list[str] = []
    steps = _steps(assembly, settings, memory=memory, inner_folds=inner_folds, inputs=inputs)
    try:
        while True:
            with _progress.listening(heard):
                step = next(steps)
            yield step
    except StopIteration as stop:
        return replace(stop.value, notes=tuple(heard))
    finally:
        steps.close()


def _steps(
    assembly: Assembly,
    settings: Settings,
    *,
    memory: Any,
    inner_folds: Sequence[ridge.Fold] | None,
    inputs: matrices.Inputs | None,
) -> Generator[Progress, None, Result]:
    """The stages of `run_steps`, one after the other."""
    refuse(assembly, settings)
    _note_unused(settings)
    given = _checked_folds(assembly, settings, inner_folds)
    inputs = inputs or matrices.Inputs()
    memory = features.default_memory() if memory is None else memory
    try:
        to_compute = estimates.refuse_too_large(assembly, settings, memory=memory)
    except SettingsError:
        if not inputs.forget():
            raise
        to_compute = estimates.refuse_too_large(assembly, settings, memory=memory)
    split = split_stories(assembly, settings)
    names = (*split.train, *split.test)
    permuted = settings.significance == "permutation"
    clock = Clock(
        {
            "features": 5.0 if to_compute else 0.2,
            "design": 0.2,
            "ridge": 1.0,
            "scores": 2.0 if permuted else 0.2,
        }
    )

    with clock.stage("features"):
        sampled = yield from _feature_stage(assembly, names, settings, memory, inputs, clock, to_compute)
    if settings.use_train_test_split:
        held_out = yield from _held_out_fit(assembly, split, settings, sampled, given, inputs, clock)
    else:
        held_out = yield from _nested_fit(assembly, split, settings, sampled, inputs, clock)
    with clock.stage("scores"):
        return (yield from _score_steps(assembly, settings, held_out, inputs, clock))


def _note_unused(settings: Settings) -> None:
    if settings.test_stories is not None and not settings.use_train_test_split:
        _progress.warn(
            f"test_stories ({', '.join(settings.test_stories) or 'none'}) are not used: with "
            f"use_train_test_split=False every story is held out in turn.",
            stacklevel=4,
        )


def _checked_folds(
    assembly: Assembly, settings: Settings, given: Sequence[ridge.Fold] | None
) -> Sequence[ridge.Fold] | None:
    """Folds from outside, held against the rows they number; None where the settings make them."""
    if given is None:
        return None
    if not settings.use_train_test_split:
        raise ValueError(
            "inner_folds number the rows of one training set, but use_train_test_split=False makes one per outer "
            "fold; leave inner_folds out."
        )
    return ridge.check_folds(
        given, len(story_numbers(assembly, split_stories(assembly, settings).train, settings))
    )


def _feature_stage(
    assembly: Assembly,
    names: Sequence[str],
    settings: Settings,
    memory: Any,
    inputs: matrices.Inputs,
    clock: Clock,
    to_compute: Mapping[str, int],
) -> Generator[Progress, None, dict[str, Array]]:
    """{story: (n_trs, n_features)} features on each story's whole TR grid.

    Stories that are not in `to_compute` are read from the cache at once: their words say nothing of the rate.
    """
    sampled = {}
    n_words = [len(assembly.stories[name].words) for name in names]
    read = [0 if name in to_compute else count for name, count in zip(names, n_words, strict=True)]
    for i, name in enumerate(names):
        steps = inputs.sampled_steps(assembly.stories[name], settings, memory=memory)
        before = sum(n_words[:i])
        try:
            while True:
                done, total = next(steps)
                share = done / max(total, 1)
                at_once = (sum(read[:i]) + read[i] * share, sum(read))
                yield clock.progress(before + n_words[i] * share, sum(n_words), name, at_once=at_once)
        except StopIteration as stop:
            sampled[name] = stop.value.values
    return sampled


def _forward(steps: Generator, clock: Clock, detail: str) -> Generator[Progress, None, Any]:
    """Turn an array function's (done, total) into `Progress`; returns what it returns."""
    try:
        while True:
            yield clock.progress(*next(steps), detail)
    except StopIteration as stop:
        return stop.value


@dataclass(frozen=True, eq=False)
class HeldOut:
    """What was predicted without having been fitted: per story, and which of its kept rows these are."""

    best_alphas: Array
    predictions: dict[str, Array]
    measured: dict[str, Array]
    rows: dict[str, Array]


def _ridge_options(settings: Settings) -> dict[str, Any]:
    return {
        "alphas": settings.alphas,
        "single_alpha": settings.single_alpha,
        "use_corr": settings.use_corr,
        "normalpha": settings.normalpha,
        "prediction_floor": settings.prediction_floor,
        "device": "cuda" if settings.device == "cuda" else "cpu",
    }


def _held_out_fit(
    assembly: Assembly,
    split: Split,
    settings: Settings,
    sampled: Mapping[str, Array],
    given: Sequence[ridge.Fold] | None,
    inputs: matrices.Inputs,
    clock: Clock,
) -> Generator[Progress, None, HeldOut]:
    """Fit on the training stories, predict the test stories."""
    with clock.stage("design"):
        yield clock.progress(0, 1, "design matrix")
        X = inputs.stack_features(assembly, split.train, sampled, settings)
        Y = inputs.stack_responses(assembly, split.train, settings)
        test = {
            s: inputs.matched_rows(assembly.stories[s], sampled[s], settings, test=True) for s in split.test
        }
    with clock.stage("ridge"):
        steps = ridge.ridge_steps(
            X,
            Y,
            X_test=np.concatenate([x for x, _ in test.values()]),
            Y_test=np.concatenate([y for _, y in test.values()]),
            folds=given or inner_folds(story_numbers(assembly, split.train, settings), settings),
            derived=inputs.derived(X),
            **_ridge_options(settings),
        )
        fitted = yield from _forward(steps, clock, "one alpha per voxel")
    stops = np.cumsum([len(x) for x, _ in test.values()])
    predictions = dict(zip(test, np.split(fitted.predictions, stops[:-1]), strict=True))
    rows = {name: np.arange(len(y)) for name, (_, y) in test.items()}
    return HeldOut(fitted.best_alphas, predictions, {name: y for name, (_, y) in test.items()}, rows)


def _nested_fit(
    assembly: Assembly,
    split: Split,
    settings: Settings,
    sampled: Mapping[str, Array],
    inputs: matrices.Inputs,
    clock: Clock,
) -> Generator[Progress, None, HeldOut]:
    """Predict every story from outer folds that do not hold the row."""
    groups = story_numbers(assembly, split.train, settings)
    how = {
        "folding_type": settings.folding_type,
        "chunk_length": settings.chunk_length,
        "groups": groups,
        "seed": settings.seed,
    }
    with clock.stage("design"):
        yield clock.progress(0, 1, "design matrix")
        X = inputs.stack_features(assembly, split.train, sampled, settings)
        Y = inputs.stack_responses(assembly, split.train, settings)
    with clock.stage("ridge"):
        outer = ridge.make_folds(len(X), n_folds=settings.n_outer_folds, **how)
        steps = ridge.nested_steps(
            X, Y, outer_folds=outer, n_inner_folds=settings.n_inner_folds, **how, **_ridge_options(settings)
        )
        fitted = yield from _forward(steps, clock, "nested cross-validation")
    # Trimmed foldings and time series leave rows that no fold scores.
    scored = np.zeros(len(X), dtype=bool)
    scored[np.concatenate([fold.test for fold in outer])] = True
    kept = {name: (groups == number) & scored for number, name in enumerate(split.train)}
    return HeldOut(
        fitted.fold_alphas,
        {name: fitted.predictions[mask] for name, mask in kept.items()},
        {name: Y[mask] for name, mask in kept.items()},
        {name: np.flatnonzero(scored[groups == number]) for number, name in enumerate(split.train)},
    )


def _score_steps(
    assembly: Assembly, settings: Settings, held_out: HeldOut, inputs: matrices.Inputs, clock: Clock
) -> Generator[Progress, None, Result]:
    """Correlations, p-values, noise ceiling and metrics of held-out predictions."""
    yield clock.progress(0, 1, "correlations and noise ceiling")
    test = settings.use_train_test_split
    predictions, measured = held_out.predictions, held_out.measured
    all_Y = np.concatenate(list(measured.values()))
    all_Y_hat = np.concatenate(list(predictions.values()))
    scores = scoring.correlation(all_Y, all_Y_hat)
    parametric = scoring.correlation_pvalues(scores, len(all_Y), alternative=settings.alternative)
    if settings.significance == "permutation":
        provisional, _ = scoring.fdr(parametric, q=settings.fdr_q)
        yield replace(clock.progress(0, 1, "permutation test"), scores=scores, significant=provisional)
        steps = scoring.permutation_steps(
            all_Y,
            all_Y_hat,
            block_trs=settings.block_trs,
            n_permutations=settings.n_permutations,
            seed=settings.seed,
            alternative=settings.alternative,
            tail="normal",
        )
        pvalues = yield from _forward(steps, clock, "permutation test")
    else:
        pvalues = parametric
    significant, _ = scoring.fdr(pvalues, q=settings.fdr_q)
    ceilings = inputs.noise_ceilings(assembly, settings, tuple(measured), test=test)
    times = {
        name: settings.trimming.features(assembly.stories[name].tr_times, test=test)[rows]
        for name, rows in held_out.rows.items()
    }
    return Result(
        settings=settings,
        scores=scores,
        story_scores={name: scoring.correlation(measured[name], predictions[name]) for name in measured},
        best_alphas=held_out.best_alphas,
        pvalues=pvalues,
        significant=significant,
        noise_ceiling=np.mean(list(ceilings.values()), axis=0) if ceilings else None,
        story_noise_ceiling=ceilings,
        predictions=predictions,
        measured=measured,
        row_times=times,
        metrics={
            **scoring.summarise(scores, significant),
            **scoring.region_metrics(scores, significant, assembly.rois),
        },
        provenance=_provenance(clock.so_far()) | {"data_digest": inputs.data_digest(assembly)},
        subject=assembly.subject,
        surface=assembly.surface,
        rois=assembly.rois,
        voxel_names=assembly.voxel_names,
        simulated=assembly.simulated,
    )


def run(
    assembly: Assembly,
    settings: Settings,
    *,
    progress: bool = True,
    **options: Any,
) -> Result:
    """Fit and score; see `pipeline.run_steps`, which this drains.

    Parameters
    ----------
    assembly, settings
    progress : bool
        Show a bar on standard error.
    options : those of `run_steps`

    Returns
    -------
    Result

    Raises
    ------
    SettingsError, ValueError
        As `run_steps`.
    TypeError
        As `run_steps`.
    """
    from tqdm import tqdm

    require_assembly(assembly, "run")
    require_settings(settings, "run")
    steps = run_steps(assembly, settings, **options)

    bar = tqdm(total=100, disable=not progress, bar_format="{desc} {percentage:3.0f}% |{bar}| {elapsed}")
    with bar:
        try:
            while True:
                step = next(steps)
                bar.set_description_str(f"{step.stage}: {step.detail}", refresh=False)
                bar.update(100 * step.overall - bar.n)
        except StopIteration as stop:
            bar.update(100 - bar.n)
            result = stop.value
    return result
