"""Grids of settings, and growing sets of stories."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields, replace
from itertools import product
from typing import Any

import numpy as np

from .. import features
from .._validation import describe
from ..assembly import Assembly, check_assembly
from ..pipeline import split_stories
from ..settings import Settings, check_settings

_Used = Callable[[Settings], bool]


def _with(*spaces: str) -> _Used:
    return lambda settings: any(space in settings.spaces for space in spaces)


def _nested(settings: Settings) -> bool:
    return not settings.use_train_test_split


# Settings that have an effect only in some runs
USED: dict[str, _Used] = {
    **dict.fromkeys(
        ("layer_idx", "lookback", "context_type", "last_token", "first_token", "stride", "processing"),
        _with("language_model"),
    ),
    "weights": _with("language_model", "embeddings"),
    "word_rate_bins": _with("wordrate"),
    "time_sigma": _with("time"),
    "extras": _with("extras"),
    "delay_extras": _with("extras"),
    "test_stories": lambda settings: not _nested(settings),
    "outer_folding_type": _nested,
    "n_outer_folds": _nested,
    "outer_gap": _nested,
    "n_permutations": lambda settings: settings.significance == "permutation" and not _nested(settings),
    "block_trs": lambda settings: settings.significance == "permutation" and not _nested(settings),
    "n_shifts": lambda settings: settings.significance == "shift",
    "least_shift": lambda settings: settings.significance == "shift",
}


def without_effect(settings: Settings) -> list[str]:
    """Names of the settings that change nothing in this run, such as the layer without a language model."""
    return [name for name, used in USED.items() if not used(settings)]


def settings_grid(base: Settings, **axes: Any) -> list[Settings]:
    """All combinations of some settings' values; the lists of several grids can be added.

    Parameters
    ----------
    base : Settings
        What does not vary.
    axes : sequence of values by the name of a setting
        `layer_idx="all"` takes every layer that the model of each combination has.

    Returns
    -------
    list of Settings
        The last axis varies first.

    Raises
    ------
    ValueError
        A setting that does not exist, with those that do; an axis without values, or with one of them twice; an
        axis of what has no effect in some combinations, such as layers without a language model.
    TypeError
        A base that is not a Settings, such as a mapping.
    """
    check_settings(base, "settings_grid")
    known = [f.name for f in fields(Settings)]
    for name in axes:
        if name not in known:
            raise ValueError(f"settings_grid: no setting is called {name!r}; there are {', '.join(known)}.")
    axes = {name: _axis(name, values) for name, values in axes.items()}
    several = [name for name, values in axes.items() if len(values) > 1 or values == ["all"]]
    found = []
    for combination in product(*axes.values()):
        chosen = dict(zip(axes, combination, strict=True))
        _refuse_idle(replace(base, **chosen), several)
        if chosen.get("layer_idx") != "all":
            found.append(replace(base, **chosen))
            continue
        n_layers = features.model_info(chosen.get("model_name", base.model_name)).n_layers
        found += [replace(base, **{**chosen, "layer_idx": layer}) for layer in range(n_layers + 1)]
    return found


def _refuse_idle(settings: Settings, names: Sequence[str]) -> None:
    """Refuse to vary settings that have no effect: runs would be the same."""
    idle = [name for name in without_effect(settings) if name in names]
    if not idle:
        return
    split = "test stories" if settings.use_train_test_split else "nested cross-validation"
    raise ValueError(
        f"settings_grid: {', '.join(idle)} has no effect on {', '.join(map(str, settings.spaces))} with {split} and "
        f"significance={settings.significance!r}, so these runs would be the same; leave it out, or make a grid for "
        f"each modality or kind of run and add the lists."
    )


def _axis(name: str, values: Any) -> list[Any]:
    if name == "layer_idx" and isinstance(values, str) and values == "all":
        return ["all"]
    if isinstance(values, (str, bytes)) or not hasattr(values, "__iter__"):
        raise ValueError(f"settings_grid: expected {name} as a list of values, got {values!r}.")
    values = [value.item() if isinstance(value, np.generic) else value for value in values]
    if not values:
        raise ValueError(f"settings_grid: expected at least one value of {name}, got none.")
    made = []
    for value in values:
        try:
            made.append(getattr(Settings(**{name: value}), name))
        except TypeError:
            raise ValueError(
                f"settings_grid: {value!r} cannot be {name}; give a list of values, each of them a sequence."
            ) from None
    twice = [value for value in made if made.count(value) > 1]
    if twice:
        raise ValueError(f"settings_grid: {name} holds {twice[0]!r} more than once; leave one out.")
    return made


def story_subsets(
    assembly: Assembly, counts: Sequence[int], *, n_draws: int = 1, seed: int = 0
) -> list[tuple[str, ...]]:
    """Values of `stories` for a learning curve: growing sets of training stories, each with all test stories.

    Within a draw every set contains the smaller ones; different draws take the stories in different orders. Equal sets,
    such as all stories in every draw, are listed once.

    Parameters
    ----------
    assembly : Assembly
    counts : whole numbers of training stories, in a list
    n_draws : orders in which stories are taken
    seed : of the orders

    Raises
    ------
    ValueError
        Not a list of whole numbers; a count below 1 or above the number of training stories.
    TypeError
        Not an Assembly.
    """
    check_assembly(assembly, "story_subsets")
    if not isinstance(counts, Iterable) or isinstance(counts, (str, Mapping)):
        raise ValueError(f"story_subsets: expected counts in a list, got {describe(counts)}; try [1, 2, 4].")
    counts = list(counts)
    split = split_stories(assembly, Settings())
    found: list[tuple[str, ...]] = []
    for draw in range(n_draws):
        order = np.random.default_rng([seed, draw]).permutation(len(split.train))
        for count in counts:
            if not isinstance(count, (int, np.integer)) or not 1 <= count <= len(split.train):
                raise ValueError(
                    f"story_subsets: expected counts from 1 to {len(split.train)}, the training stories of "
                    f"{assembly.subject}; got {count!r}."
                )
            chosen = {split.train[i] for i in order[:count]} | set(split.test)
            names = tuple(name for name in assembly.stories if name in chosen)
            if names not in found:
                found.append(names)
    return found
