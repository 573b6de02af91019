"""What follows from an assembly and settings before any work: the split, kept rows, folds, sizes, problems."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .. import features, ridge
from ..assembly import Array, Assembly, Story, require_assembly
from ..design import Trimming
from ..scoring import LEAST_BLOCKS, LEAST_ROWS
from ..settings import Settings, SettingsError, check_values, require_settings


@dataclass(frozen=True)
class Split:
    """Names of the stories that are fitted and of those that are predicted."""

    train: tuple[str, ...]
    test: tuple[str, ...]


def split_stories(assembly: Assembly, settings: Settings) -> Split:
    """The stories of each part, in the assembly's order; in nested cross-validation all are in `train`.

    Raises
    ------
    SettingsError
        A name that the assembly does not have, a part that is empty.
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
            "stories", "No training story is left beside the test stories; choose at least one more."
        )
    if not test:
        raise SettingsError(
            "test_stories",
            "There is no test story: name one in test_stories, or set use_train_test_split=False.",
        )
    return Split(train, tuple(s for s in assembly.stories if s in test))


def n_kept_rows(story: Story, trimming: Trimming, *, test: bool) -> int:
    """Rows of a story that trimming keeps.

    Raises
    ------
    SettingsError
        Features and targets that do not meet, or fewer than two rows left.
    """
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


def story_numbers(assembly: Assembly, stories: Sequence[str], settings: Settings) -> Array:
    """(n_rows,) the number of the story that each training row comes from."""
    counts = [n_kept_rows(assembly.stories[s], settings.trimming, test=False) for s in stories]
    return np.repeat(np.arange(len(counts)), counts)


def inner_folds(groups: Array, settings: Settings) -> list[ridge.Fold]:
    """The folds over which alphas are chosen; `groups` is the story number of each training row."""
    return _folds(groups, settings, settings.n_inner_folds)


def outer_folds(groups: Array, settings: Settings) -> list[ridge.Fold]:
    """The folds that nested cross-validation scores; `groups` is the story number of each row."""
    return _folds(groups, settings, settings.n_outer_folds)


def _folds(groups: Array, settings: Settings, n_folds: int) -> list[ridge.Fold]:
    return ridge.make_folds(
        len(groups),
        folding_type=settings.folding_type,
        n_folds=n_folds,
        chunk_length=settings.chunk_length,
        groups=groups,
        seed=settings.seed,
    )


# the permutation test shuffles blocks: with fewer there are too few orders to tell anything apart
# of nested cross-validation: inner folds are looked at in the outer folds that train on fewest rows
_OUTER_FOLDS_LOOKED_AT = 50
_FOLD_FIELDS = ("folding_type", "n_inner_folds", "chunk_length", "seed")
_MODEL_FIELDS = ("modality", "joined_with", "model_name", "layer_idx", "lookback", "context_type", "stride")
_MODEL_FIELDS += ("processing", "last_token", "use_stored_contexts", "embedding")
_LEAST_PARAMETRIC = 3  # rows, see `scoring.correlation_pvalues`


def check(assembly: Assembly, settings: Settings) -> dict[str, str]:
    """What stands against this fit: {setting: one sentence}, empty when it can start.

    Reads a model's configuration, not its weights, and no BOLD. Raises nothing, whatever the settings hold.

    Raises
    ------
    TypeError
        No Assembly, or no Settings, such as a mapping of them.
    """
    require_assembly(assembly, "check")
    require_settings(settings, "check")
    problems = check_values(settings)
    if not problems.keys() & set(_MODEL_FIELDS):
        problems |= _check_features(settings)
    if settings.device == "cuda" and (problem := features.device_problem("cuda")):
        problems["device"] = problem
    if problems.keys() & {"stories", "test_stories", "use_train_test_split"}:
        return problems
    try:
        split = split_stories(assembly, settings)
    except SettingsError as error:
        return problems | {error.field: str(error)}
    problems |= _check_contexts(assembly, settings, split, problems)
    return problems if "trimming" in problems else problems | _check_rows(assembly, settings, split, problems)


def _check_features(settings: Settings) -> dict[str, str]:
    """Problems of the feature spaces: their model, layer, lookback and file."""
    problems = {}
    spaces = (settings.modality, *settings.joined_with)
    if "embeddings" in spaces:
        problems |= _check_embedding(settings)
    if "language_model" in spaces:
        spec = settings.feature_specs["language_model"].activation
        problems |= features.check_spec(
            spec, layer_idx=settings.layer_idx, stored=settings.use_stored_contexts
        )
    return problems


def _check_embedding(settings: Settings) -> dict[str, str]:
    """Problems of static embeddings: a file that is not there, a model that is not known."""
    if settings.embedding is None:
        spec = features.ActivationSpec(settings.model_name, lookback=1)
        found = features.check_spec(spec, layer_idx=0)
        return {name: sentence for name, sentence in found.items() if name == "model_name"}
    if features.is_vector_file(settings.embedding):
        return {}
    return {
        "embedding": f"There is no file of word vectors at {settings.embedding!r}; check the path, or leave "
        f"embedding=None, which takes the input embedding of model_name."
    }


def _check_contexts(
    assembly: Assembly, settings: Settings, split: Split, problems: Mapping[str, str]
) -> dict[str, str]:
    """Stored windows that are asked for and that a story does not have."""
    if settings.use_stored_contexts is not True or problems.keys() & set(_MODEL_FIELDS):
        return {}
    spec = settings.feature_specs.get("language_model")
    if spec is None:
        return {}
    for name in (*split.train, *split.test):
        try:
            features.stored_contexts(assembly.stories[name], spec)
        except ValueError as error:
            return {"use_stored_contexts": str(error)}
    return {}


def _check_rows(
    assembly: Assembly, settings: Settings, split: Split, problems: Mapping[str, str]
) -> dict[str, str]:
    """Problems of the rows that are left: trimming, delays, folds, and the permutation test's blocks."""
    try:
        train = {s: n_kept_rows(assembly.stories[s], settings.trimming, test=False) for s in split.train}
        test = {s: n_kept_rows(assembly.stories[s], settings.trimming, test=True) for s in split.test}
    except SettingsError as error:
        return {error.field: str(error)}
    found = {}
    if "fir_delays" not in problems:
        found |= _check_delays(settings, [*train.items(), *test.items()])
    fold_fields = _FOLD_FIELDS if split.test else (*_FOLD_FIELDS, "n_outer_folds")
    if problems.keys() & set(fold_fields):
        return found
    try:
        scored = _held_out_rows(np.repeat(np.arange(len(train)), list(train.values())), settings)
    except SettingsError as error:
        return found | {error.field: str(error)}
    n_rows = sum(test.values()) if split.test else scored
    if settings.significance == "permutation" and "block_trs" not in problems:
        found |= _check_blocks(settings, n_rows)
    if settings.significance == "parametric" and n_rows < _LEAST_PARAMETRIC:
        found["trimming"] = (
            f"{', '.join(split.test)} (test story): trimming keeps {n_rows} rows, and p-values need "
            f"{_LEAST_PARAMETRIC} or more; keep more rows or hold out more stories."
        )
    return found


def _check_delays(settings: Settings, n_rows: Sequence[tuple[str, int]]) -> dict[str, str]:
    """A delay that carries every word of a story out of its rows leaves columns of nothing but zeros."""
    story, shortest = min(n_rows, key=lambda pair: pair[1])
    furthest = max(settings.fir_delays, key=abs)
    if abs(furthest) < shortest:
        return {}
    return {
        "fir_delays": f"Expected delays shorter than every story, got {furthest} TRs where {story} keeps {shortest}; "
        f"try (1, 2, 3, 4)."
    }


def _held_out_rows(groups: Array, settings: Settings) -> int:
    """Make the folds that the fit will make; how many rows nested cross-validation scores, else 0."""
    if settings.use_train_test_split:
        _made(lambda: inner_folds(groups, settings), "n_inner_folds")
        return 0
    outer = _made(lambda: outer_folds(groups, settings), "n_outer_folds")
    numbers = sorted(range(len(outer)), key=lambda number: len(outer[number].train))
    for number in numbers[:_OUTER_FOLDS_LOOKED_AT]:
        labels = groups[outer[number].train]
        _made(
            lambda labels=labels: inner_folds(labels, settings),
            "n_inner_folds",
            where=f"Inner folds within outer fold {number + 1} of {len(outer)}: ",
        )
    return len(np.unique(np.concatenate([fold.test for fold in outer])))


def _made(make: Callable[[], list[ridge.Fold]], n_folds: str, *, where: str = "") -> list[ridge.Fold]:
    """Folds, or a SettingsError that names the setting which `make_folds` objects to."""
    try:
        return make()
    except ridge.FoldError as error:
        field = {"n_folds": n_folds, "groups": "folding_type", "trim_size": "folding_type"}
        raise SettingsError(field.get(error.argument, error.argument), f"{where}{error}") from None


def _check_blocks(settings: Settings, n_rows: int) -> dict[str, str]:
    """Held-out rows that are too few to permute, or make too few blocks."""
    if settings.block_trs is None:
        if n_rows >= LEAST_ROWS:
            return {}
        return {
            "significance": f"The permutation test needs {LEAST_ROWS} held-out rows or more, got {n_rows}; hold out "
            f"more stories, trim less, or choose significance='parametric'."
        }
    n_blocks = -(-n_rows // settings.block_trs)
    if n_blocks >= LEAST_BLOCKS:
        return {}
    most = (n_rows - 1) // (LEAST_BLOCKS - 1)
    advice = f"choose a block of at most {most} TRs" if most else "choose significance='parametric'"
    advice += ", None, which shuffles phases,"
    return {
        "block_trs": f"The permutation test needs {LEAST_BLOCKS} blocks or more, and {n_rows} held-out rows in blocks "
        f"of {settings.block_trs} TRs make {n_blocks}; {advice} or hold out more stories."
    }


def refuse(assembly: Assembly, settings: Settings) -> None:
    """Raise the first of `check`'s problems as a `SettingsError`."""
    for name, message in check(assembly, settings).items():
        raise SettingsError(name, message)


EXPECTED_WIDTH = 300  # columns of a file of word vectors


@dataclass(frozen=True)
class FitShape:
    """Sizes of a fit: rows to train on and to predict, columns, voxels, and the rows of its longest story."""

    n_rows: int
    n_test_rows: int
    n_columns: int
    n_voxels: int
    longest_story: int


def fit_shape(assembly: Assembly, settings: Settings) -> FitShape:
    """The shape of the fit that a run with these settings makes."""
    split = split_stories(assembly, settings)
    train = [n_kept_rows(assembly.stories[s], settings.trimming, test=False) for s in split.train]
    test = [n_kept_rows(assembly.stories[s], settings.trimming, test=True) for s in split.test]
    width = sum(_width(settings, modality) for modality in (settings.modality, *settings.joined_with))
    return FitShape(
        n_rows=sum(train),
        n_test_rows=sum(test) if settings.use_train_test_split else sum(train),
        n_columns=width * len(settings.fir_delays),
        n_voxels=assembly.n_voxels,
        longest_story=max([*train, *test]),
    )


def _width(settings: Settings, modality: str) -> int:
    """Columns of a feature space before delays."""
    if modality == "wordrate":
        return 1
    if modality == "embeddings" and settings.embedding is not None:
        return EXPECTED_WIDTH
    return features.model_info(settings.model_name).d_model or EXPECTED_WIDTH
