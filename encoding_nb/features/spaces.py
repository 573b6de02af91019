"""The feature spaces of a story, sampled at its TRs.

A space is a function from a story to an array; `FEATURE_SPACES` lists them. Three of them are controls that are made on
the TR grid itself: the position in the story, nothing but time, and arrays that came with the data.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .. import _progress
from .._validation import check_choice
from ..assembly import Story, Words
from ..design import downsample, words_to_trs
from .activations import ActivationSpec, activations_cached, layer_activations, token_embeddings
from .word_vectors import read_word_vectors

Array = np.ndarray
WORD_RATE_BINS = ("centred", "litcoder")
BEGINNING = 30.0  # seconds, in which BOLD is often higher


@dataclass(frozen=True)
class FeatureSpec:
    """One feature space.

    Attributes
    ----------
    modality : one of `FEATURE_SPACES`
    activation : for "language_model"
    layer_idx : for "language_model": residual stream, see `activations.layer_activations`
    embedding : for "embeddings": a model's name (its input embedding) or a file of word vectors
    use_stored_contexts : for "language_model": windows that came with the data, in place of the lookback
    word_rate_bins : for "wordrate": see `word_rate`
    time_sigma : for "time": see `time_features`
    extras : for "extras": names of arrays in `Story.extras`
    delayed : whether delays apply to the space
    weights, weights_seed : for "embeddings" of a model: see `ActivationSpec`
    """

    modality: str = "language_model"
    activation: ActivationSpec | None = None
    layer_idx: int = 0
    embedding: str | None = None
    use_stored_contexts: bool = False
    word_rate_bins: str = "centred"
    time_sigma: float = 2.0
    extras: tuple[str, ...] = ()
    delayed: bool = True
    weights: str = "trained"
    weights_seed: int = 0


def is_cached(story: Story, spec: FeatureSpec, *, memory: Any = None) -> bool:
    """Whether a story's features need no model to be loaded: they are on disk, or the space has no model."""
    if spec.modality == "language_model":
        return activations_cached(
            story.words.text, spec.activation, spec.layer_idx, memory, contexts=stored_contexts(story, spec)
        )
    return spec.modality != "embeddings" or is_vector_file(spec.embedding)


def is_vector_file(embedding: str | None) -> bool:
    """Whether an embedding names an existing file of word vectors, and not a model."""
    return bool(embedding) and os.path.isfile(embedding)


def stored_contexts(story: Story, spec: FeatureSpec) -> tuple[str, ...] | None:
    """The (n_words,) windows that came with the story, or None where the spec does not ask for them.

    Raises
    ------
    ValueError
        Naming the story: it has none of the spec's context type.
    """
    if not spec.use_stored_contexts:
        return None
    stored = story.contexts or {}
    if spec.activation.context_type not in stored:
        raise ValueError(
            f"{story.name}: expected stored windows of type {spec.activation.context_type!r}, got "
            f"{', '.join(stored) or 'none'}; set use_stored_contexts=False to make windows from the words."
        )
    return stored[spec.activation.context_type]


def word_rate(words: Words, tr_times: Array, *, bins: str = "centred") -> Array:
    """Word rate: the number of words per TR.

    A word counts for the TR in whose interval its middle lies. Empty words and words without a time do not count. The
    downsampling method has no effect.

    Parameters
    ----------
    words : Words
    tr_times : (n_trs,), seconds
    bins : one of `WORD_RATE_BINS`
        ``centred``: a TR's interval begins half a TR before its time and ends half a TR after it, as for `downsample`,
        so that word rate is on the clock of all other features. ``litcoder``: it begins at the TR's time and ends at
        the next one's, as in LITcoder: half a TR later.

    Returns
    -------
    array, (n_trs, 1), float32

    Raises
    ------
    ValueError
        Unknown bins.
    """
    spoken = np.array([bool(word.strip()) for word in words.text])
    if check_choice(bins, "word_rate: bins", WORD_RATE_BINS) == "litcoder":
        tr = float(np.mean(np.diff(tr_times)))
        counts, _ = np.histogram(words.times[spoken], np.append(tr_times, tr_times[-1] + tr))
    else:
        trs = words_to_trs(words.times[spoken], tr_times)
        counts = np.bincount(trs[trs >= 0], minlength=len(tr_times))
    return counts[:, None].astype(np.float32)


def file_embeddings(words: Sequence[str], path: str | Path) -> Array:
    """(n_words, width) word vectors from a file; words that it does not have are 0 and are counted in a warning.

    Raises
    ------
    ValueError
        None of the words is in the file.
    """
    spoken = [word for word in words if word.strip()]
    vectors = read_word_vectors(path, spoken)
    if not vectors:
        raise ValueError(
            f"{path}: none of the {len(spoken)} words is in it; is it in another language or case?"
        )
    unknown = Counter(word for word in spoken if word not in vectors)
    if unknown:
        examples = ", ".join(repr(word) for word, _ in unknown.most_common(5))
        _progress.warn(
            f"{unknown.total()} of {len(spoken)} words are not in {Path(path).name} and are 0 ({examples}).",
            stacklevel=2,
        )
    nothing = np.zeros_like(next(iter(vectors.values())))
    return np.stack([vectors.get(word, nothing) for word in words])


# ---------------------------------------------------------------------- controls on the TR grid


def position_features(tr_times: Array, *, first_row: int = 0) -> Array:
    """Position in the story: the row's number from 0, the logarithm of 1 + that, and 1 in the first 30 s.

    BOLD often rises or falls over a story and at its beginning, and so may a language model's features: what a model
    adds to position does not come from that.

    Parameters
    ----------
    tr_times : (n_trs,), seconds
    first_row : the row at which the story begins: the first that trimming keeps. The rows before it are as this one

    Returns
    -------
    array, (n_trs, 3), float32
    """
    rows = np.maximum(np.arange(len(tr_times)) - first_row, 0)
    beginning = np.asarray(tr_times) - tr_times[first_row] < BEGINNING
    return np.column_stack([rows, np.log1p(rows), beginning]).astype(np.float32)


def time_features(n_trs: int, n_columns: int, *, sigma: float = 2.0) -> Array:
    """A model that knows nothing but time: column i is row i of every story, smoothed along time.

    An identity over rows, smoothed by a Gaussian, can only predict a held-out row from rows next to it: where it scores
    above 0, the folds leak (the OASM of Hadidi, Feghhi et al. 2026).

    Parameters
    ----------
    n_trs : rows of the story
    n_columns : rows of the longest story
    sigma : TRs, standard deviation of the Gaussian

    Returns
    -------
    array, (n_trs, n_columns), float32
    """
    away = np.arange(n_trs)[:, None] - np.arange(n_columns)
    return np.exp(-0.5 * (away / sigma) ** 2).astype(np.float32)


def extra_features(story: Story, names: Sequence[str]) -> Array:
    """Arrays that came with a story, next to each other.

    Parameters
    ----------
    story : Story
    names : keys of `Story.extras`; each array is (n_trs,) or (n_trs, n) numbers on the story's TR grid

    Returns
    -------
    array, (n_trs, n_columns), float32

    Raises
    ------
    ValueError
        With the story's name: an array that it does not have, of another length, or not of numbers.
    """
    return np.hstack([np.asarray(part, np.float32) for part in _checked_extras(story, names)])


def extras_width(story: Story, names: Sequence[str]) -> int:
    """Number of columns of `extra_features`, which checks the arrays."""
    return sum(part.shape[1] for part in _checked_extras(story, names))


def _checked_extras(story: Story, names: Sequence[str]) -> list[Array]:
    """Each array as (n_trs, n)."""
    found = []
    for name in names:
        if name not in story.extras:
            known = ", ".join(map(str, story.extras)) or "no arrays"
            raise ValueError(f"{story.name}: expected {name!r} in its extras, got {known}.")
        values = np.asarray(story.extras[name])
        if values.dtype.kind not in "biuf" or values.ndim not in (1, 2) or 0 in values.shape:
            raise ValueError(
                f"{story.name}: expected the extras {name!r} as numbers, (rows,) or (rows, columns), got "
                f"{values.dtype} of shape {values.shape}."
            )
        if len(values) != story.n_trs:
            raise ValueError(
                f"{story.name}: expected {story.n_trs} rows in the extras {name!r}, one for each TR time, got "
                f"{len(values)}."
            )
        found.append(values.reshape(len(values), -1))
    return found


# ---------------------------------------------------------------------- the spaces

Sample = Callable[[Array], Array]  # (n_words, n_features) to (n_trs, n_features)


def _language_model(story: Story, spec: FeatureSpec, sample: Sample, **options: Any) -> Array:
    if spec.activation is None:
        raise ValueError("a language model's features need FeatureSpec(activation=ActivationSpec(...)).")
    options = {name: options[name] for name in ("memory", "device", "progress")}
    options |= {"layer_idx": spec.layer_idx, "contexts": stored_contexts(story, spec)}
    return sample(layer_activations(story.words.text, spec.activation, **options))


def _wordrate(story: Story, spec: FeatureSpec, sample: Sample, **options: Any) -> Array:
    options["progress"](1, 1)
    return word_rate(story.words, story.tr_times, bins=spec.word_rate_bins)


def _embeddings(story: Story, spec: FeatureSpec, sample: Sample, **options: Any) -> Array:
    if not spec.embedding:
        raise ValueError("embeddings need FeatureSpec(embedding=...), a model's name or a word-vector file.")
    options["progress"](0, 1)
    if is_vector_file(spec.embedding):
        words = file_embeddings(story.words.text, spec.embedding)
    else:
        weights: dict[str, Any] = {"weights": spec.weights, "weights_seed": spec.weights_seed}
        words = token_embeddings(story.words.text, spec.embedding, device=options["device"], **weights)
    options["progress"](1, 1)
    return sample(words)


def _position(story: Story, spec: FeatureSpec, sample: Sample, **options: Any) -> Array:
    options["progress"](1, 1)
    return position_features(story.tr_times, first_row=options["first_row"])


def _time(story: Story, spec: FeatureSpec, sample: Sample, **options: Any) -> Array:
    options["progress"](1, 1)
    return time_features(story.n_trs, options["n_time_columns"], sigma=spec.time_sigma)


def _extras(story: Story, spec: FeatureSpec, sample: Sample, **options: Any) -> Array:
    if not spec.extras:
        raise ValueError("extras need FeatureSpec(extras=...), names of arrays in Story.extras.")
    options["progress"](1, 1)
    return extra_features(story, spec.extras)


# (story, spec, sample, memory=, device=, progress=, n_time_columns=, first_row=) -> (n_trs, n_features)
FEATURE_SPACES: dict[str, Callable[..., Array]] = {
    "language_model": _language_model,
    "wordrate": _wordrate,
    "embeddings": _embeddings,
    "position": _position,
    "time": _time,
    "extras": _extras,
}


@dataclass(frozen=True, eq=False)
class JoinedFeatures:
    """Several spaces next to each other.

    Attributes
    ----------
    values : array, (n_trs, sum of widths)
    widths : {name: number of columns}, in their order
    """

    values: Array
    widths: Mapping[str, int]


def joined_features(
    story: Story,
    specs: Mapping[str, FeatureSpec],
    *,
    downsample_method: str = "lanczos",
    downsample_options: Mapping[str, Any] | None = None,
    n_time_columns: int | None = None,
    first_row: int = 0,
    memory: Any = None,
    device: str = "auto",
    progress: _progress.Count | None = None,
) -> JoinedFeatures:
    """One or more named feature spaces of a story, on its TRs.

    Parameters
    ----------
    story : Story
    specs : {name: FeatureSpec}
    downsample_method, downsample_options : method and options of `design.downsample`
    n_time_columns : int, optional
        For the space "time": rows of the longest story; None takes this story's.
    first_row : int
        For the space "position", see `position_features`.
    memory : joblib.Memory or path, optional
        Where a language model's activations are kept.
    device : "auto", "cpu", "cuda", "cuda:1", ... or "mps"
    progress : function, optional
        Called with (done, total), where each space counts the same. What it raises ends the work, and is raised here as
        it is.

    Returns
    -------
    JoinedFeatures, (n_trs, n_features) on `story.tr_times`, columns in the order of `specs`

    Raises
    ------
    ValueError
        With the story's name: no spaces, or what a space itself refuses. Without it: an unknown modality.
    """
    if not specs:
        raise ValueError(f"{story.name}: expected at least one feature space to join, got none.")
    parts: dict[str, Array] = {}
    from_progress: list[ValueError] = []

    def report(done: float, total: float) -> None:
        try:
            if progress is not None:
                progress(100 * len(parts) + 100 * done / max(total, 1), 100 * len(specs))
        except ValueError as error:
            from_progress.append(error)
            raise

    timed, options = story.words.timed, dict(downsample_options or {})
    if options.get("split_indices") is not None:  # of all words, where only those with a time are sampled
        options["split_indices"] = np.concatenate([[0], np.cumsum(timed)])[
            np.asarray(options["split_indices"])
        ]
    times = {"data_times": story.words.times[timed], "tr_times": story.tr_times}

    def sample(values: Array) -> Array:
        return downsample(values[timed], method=downsample_method, **times, **options)

    for name, spec in specs.items():
        space = FEATURE_SPACES[check_choice(spec.modality, "modality", FEATURE_SPACES)]
        try:
            parts[name] = space(
                story,
                spec,
                sample,
                memory=memory,
                device=device,
                progress=report,
                n_time_columns=n_time_columns or story.n_trs,
                first_row=first_row,
            )
        except ValueError as error:
            if error in from_progress or str(error).startswith(f"{story.name}:"):
                raise
            raise type(error)(f"{story.name}: {error}") from error
    widths = {name: part.shape[1] for name, part in parts.items()}
    return JoinedFeatures(np.hstack(list(parts.values())), widths)
