"""What a run wants before its products, done beforehand: while a person still looks at the settings.

A run does all of it by itself; this only makes it quicker.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import numpy as np

from .. import features, ridge
from ..assembly import Assembly
from ..settings import Settings
from . import matrices
from .kept_inputs import KeptInputs, worth_preparing
from .plan import check, inner_folds, split_stories, story_numbers


def is_cached(assembly: Assembly, settings: Settings, *, memory: Any = None) -> bool:
    """Whether a run would find the features of all its stories on disk."""
    memory = features.default_memory() if memory is None else memory
    split = split_stories(assembly, settings)
    stories = (assembly.stories[name] for name in (*split.train, *split.test))
    return all(
        features.is_cached(story, spec, memory=memory)
        for story in stories
        for spec in settings.feature_specs.values()
    )


def prepare(assembly: Assembly, settings: Settings, *, memory: Any = None) -> None:
    """Do what every run on these data needs once: tokenizer and noise ceiling. Quiet where `check` objects."""
    if check(assembly, settings):
        return
    is_cached(assembly, settings, memory=memory)
    split = split_stories(assembly, settings)
    test = settings.use_train_test_split
    matrices.Inputs().noise_ceilings(assembly, settings, split.test if test else split.train, test=test)


def prepare_steps(
    assembly: Assembly, settings: Settings, inputs: KeptInputs, *, memory: Any = None
) -> Generator[None, None, None]:
    """Make ready in `inputs`, in steps, what a run with these settings will want of them before its products.

    Responses, design, and what the folds' operators are made of; nothing where activations are missing, where
    `check` objects, or of a design that takes more than about a second. Drained by `KeptInputs.prepare`.

    Raises
    ------
    ValueError
        What would end the run, too.
    """
    if check(assembly, settings) or not is_cached(assembly, settings, memory=memory):
        return
    memory = features.default_memory() if memory is None else memory
    split = split_stories(assembly, settings)
    sampled = {}
    for name in (*split.train, *split.test):
        steps = inputs.sampled_steps(assembly.stories[name], settings, memory=memory)
        sampled[name] = (yield from _quiet(steps)).values
    n_columns = sampled[split.train[0]].shape[1] * len(settings.fir_delays)
    groups = story_numbers(assembly, split.train, settings)
    if not worth_preparing(len(groups), n_columns):
        return
    X = inputs.stack_features(assembly, split.train, sampled, settings)
    yield
    inputs.stack_responses(assembly, split.train, settings)
    yield
    derived = inputs.derived(X)
    if settings.use_train_test_split and settings.device != "cuda" and derived is not None:
        rows = {
            name: matrices.feature_rows(assembly.stories[name], sampled[name], settings, test=True)
            for name in split.test
        }
        steps = ridge.derive_steps(
            X,
            derived=derived,
            alphas=settings.alphas,
            folds=inner_folds(groups, settings),
            X_test=np.concatenate(list(rows.values())),
            use_corr=settings.use_corr,
            normalpha=settings.normalpha,
        )
        yield from _quiet(steps)


def _quiet(steps: Generator) -> Generator[None, None, Any]:
    """Steps that say nothing; returns what they return."""
    try:
        while True:
            next(steps)
            yield
    except StopIteration as stop:
        return stop.value
