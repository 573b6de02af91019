"""The feature spaces of a story, sampled at its TRs.

A space is a function from a story to an array; which ones there are stands in `FEATURE_SPACES`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .. import _progress
from ..assembly import Story, Words
from ..design import downsample
from .activations import ActivationSpec, activation_steps, token_embeddings
from .activations import activations_cached as _activations_cached
from .word_vectors import read_word_vectors

Array = np.ndarray
Steps = Generator[tuple[int, int], None, Array]


@dataclass(frozen=True)
class FeatureSpec:
    """One feature space.

    Attributes
    ----------
    modality : one of `FEATURE_SPACES`
    activation : for "language_model"
    layer_idx : for "language_model": residual stream, see `activations.activation_steps`
    embedding : for "embeddings": a model's name (its input embedding) or a file of word vectors
    use_stored_contexts : for "language_model": windows that came with the data, in place of the lookback
    """

    modality: str = "language_model"
    activation: ActivationSpec | None = None
    layer_idx: int = 0
    embedding: str | None = None
    use_stored_contexts: bool = False


def feature_steps(
    story: Story,
    spec: FeatureSpec,
    *,
    downsample_method: str = "lanczos",
    downsample_options: Mapping[str, Any] | None = None,
    memory: Any = None,
    device: str = "auto",
) -> Steps:
    """A story's features on its TRs, as a generator of (done, total) that returns the array.

    Returns
    -------
    array, (n_trs, n_features), on `story.tr_times`

    Raises
    ------
    ValueError
        Naming the story: an unknown modality, or what the space itself refuses.
    """
    if spec.modality not in FEATURE_SPACES:
        raise ValueError(f"Unknown modality {spec.modality!r}; choose one of {', '.join(FEATURE_SPACES)}.")
    try:
        return (
            yield from FEATURE_SPACES[spec.modality](
                story, spec, downsample_method, dict(downsample_options or {}), memory, device
            )
        )
    except ValueError as error:
        if str(error).startswith(f"{story.name}:"):
            raise
        raise type(error)(f"{story.name}: {error}") from error


def story_features(story: Story, spec: FeatureSpec, **options: Any) -> Array:
    """`feature_steps` run to its end: (n_trs, n_features)."""
    return _drained(feature_steps(story, spec, **options))


def _drained(steps: Generator[Any, None, Any]) -> Any:
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            return stop.value


def is_cached(story: Story, spec: FeatureSpec, *, memory: Any = None) -> bool:
    """Whether a story's features need no model to be loaded: they are on disk, or the space has none."""
    if spec.modality == "language_model":
        return _activations_cached(
            story.words.text, spec.activation, spec.layer_idx, memory, contexts=stored_contexts(story, spec)
        )
    return spec.modality != "embeddings" or is_vector_file(spec.embedding)


def is_vector_file(embedding: str | None) -> bool:
    """Whether an embedding names a file of word vectors that is there, and not a model."""
    try:
        return bool(embedding) and Path(embedding).is_file()
    except (OSError, ValueError):  # longer than a path can be
        return False


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


def _language_model(
    story: Story, spec: FeatureSpec, method: str, options: dict[str, Any], memory: Any, device: str
) -> Steps:
    if spec.activation is None:
        raise ValueError("a language model's features need FeatureSpec(activation=ActivationSpec(...)).")
    words = yield from activation_steps(
        story.words.text,
        spec.activation,
        layer_idx=spec.layer_idx,
        memory=memory,
        contexts=stored_contexts(story, spec),
        device=device,
    )
    return downsample(words, story.words.times, story.tr_times, method=method, **options)


def word_rate(words: Words, tr_times: Array) -> Array:
    """(n_trs, 1): words whose middle lies from a TR's time up to the next one's; empty words do not count.

    The interval is LITcoder's. Counted, whatever the downsampling method.
    """
    spoken = np.array([bool(word.strip()) for word in words.text])
    tr = float(np.mean(np.diff(tr_times)))
    counts, _ = np.histogram(words.times[spoken], np.append(tr_times, tr_times[-1] + tr))
    return counts[:, None].astype(np.float32)


def _wordrate(
    story: Story, spec: FeatureSpec, method: str, options: dict[str, Any], memory: Any, device: str
) -> Steps:
    yield 1, 1
    return word_rate(story.words, story.tr_times)


def _embeddings(
    story: Story, spec: FeatureSpec, method: str, options: dict[str, Any], memory: Any, device: str
) -> Steps:
    if not spec.embedding:
        raise ValueError(
            "embeddings need FeatureSpec(embedding=...), a model's name or a file of word vectors."
        )
    yield 0, 1
    if is_vector_file(spec.embedding):
        words = file_embeddings(story.words.text, spec.embedding)
    else:
        words = token_embeddings(story.words.text, spec.embedding, device=device)
    yield 1, 1
    return downsample(words, story.words.times, story.tr_times, method=method, **options)


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


FEATURE_SPACES: dict[str, Callable[..., Steps]] = {
    "language_model": _language_model,
    "wordrate": _wordrate,
    "embeddings": _embeddings,
}


# ---------------------------------------------------------------------- several spaces


@dataclass(frozen=True, eq=False)
class JoinedFeatures:
    """Several spaces side by side.

    Attributes
    ----------
    values : array, (n_trs, sum of widths)
    widths : {name: columns}, in their order
    """

    values: Array
    widths: Mapping[str, int]

    @property
    def columns(self) -> dict[str, slice]:
        """Where each space's columns are."""
        stops = np.cumsum(list(self.widths.values()))
        return {
            name: slice(int(stop) - w, int(stop))
            for (name, w), stop in zip(self.widths.items(), stops, strict=True)
        }


def joined_steps(
    story: Story, specs: Mapping[str, FeatureSpec], **options: Any
) -> Generator[tuple[int, int], None, JoinedFeatures]:
    """Several named spaces of a story, one after the other; `options` as for `feature_steps`.

    Yields
    ------
    (done, total), each space counting as much as any other

    Returns
    -------
    JoinedFeatures, columns in the order of `specs`
    """
    if not specs:
        raise ValueError(f"{story.name}: expected at least one feature space to join, got none.")
    parts: dict[str, Array] = {}
    for i, (name, spec) in enumerate(specs.items()):
        steps = feature_steps(story, spec, **options)
        while True:
            try:
                done, total = next(steps)
            except StopIteration as stop:
                parts[name] = stop.value
                break
            yield 100 * i + 100 * done // max(total, 1), 100 * len(specs)
    return JoinedFeatures(
        np.hstack(list(parts.values())), {name: part.shape[1] for name, part in parts.items()}
    )


def joined_features(story: Story, specs: Mapping[str, FeatureSpec], **options: Any) -> JoinedFeatures:
    """`joined_steps` run to its end."""
    return _drained(joined_steps(story, specs, **options))
