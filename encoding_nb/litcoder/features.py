"""LITcoder's feature extractors, downsampler and FIR."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .._validation import as_flag, as_mapping, as_whole, refuse_unknown
from ..assembly import Array
from ..design import DOWNSAMPLERS, add_delays, downsample
from ..features import (
    ActivationSpec,
    default_memory,
    file_embeddings,
    is_vector_file,
    layer_activations,
    token_embeddings,
)

OPTIONS = ("split_indices", "window", "cutoff_mult", "rectify", "causal", "renorm", "freqs", "sigma")
BY_WORD = ("average", "sum", "last")
METHODS = (*DOWNSAMPLERS, *(f"legacy_{method}" for method in BY_WORD))


def plain_method(method: str) -> str:
    """This package's name of a method: LITcoder's legacy_average is average by TR boundaries.

    Raises
    ------
    ValueError
        An unknown method; the known ones are listed.
    """
    if method not in METHODS:
        raise ValueError(f"Downsampler: unknown method {method!r}; choose one of {', '.join(METHODS)}.")
    return method.removeprefix("legacy_")


class Downsampler:
    """Word features to TRs, by LITcoder's method names."""

    @property
    def available_methods(self) -> list[str]:
        """Names of the methods."""
        return list(METHODS)

    def downsample(
        self, data: Array, data_times: Array, tr_times: Array, method: str = "rect", **options: Any
    ) -> Array:
        """(n_trs, n_features) features at TRs; see `encoding_nb.downsample` for methods and options.

        `split_indices` may be the first word of each TR but the first, (n_trs - 1,), or each word's TR,
        (n_words,). In LITcoder "average", "sum" and "last" read the former as the latter and return a row per
        word; here both give a row per TR, TRs without words 0.

        Raises
        ------
        ValueError
            An unknown method or option, split indices that fit neither words nor TRs, and as
            `encoding_nb.downsample`.
        """
        refuse_unknown(options, OPTIONS, "Downsampler")
        name = plain_method(method)
        if options.get("split_indices") is not None:
            legacy = method.startswith("legacy_")
            options["split_indices"] = boundaries(options["split_indices"], len(data), len(tr_times), legacy)
        return downsample(data, data_times, tr_times, method=name, **options)


def boundaries(split_indices: Sequence[int], n_words: int, n_trs: int, legacy: bool) -> Array:
    """(n_trs - 1,) first words of all TRs but the first, from these or, unless `legacy`, from each word's TR."""
    given = np.asarray(split_indices, dtype=int)
    if len(given) == n_trs - 1 and (legacy or n_words != n_trs - 1):
        return given
    if len(given) != n_words or legacy:
        raise ValueError(
            f"split_indices: expected the first words of {n_trs - 1} TRs"
            + ("" if legacy else f" or the TR of each of {n_words} words")
            + f", got {len(given)} numbers; do they come from the same story as the features?"
        )
    if np.any(np.diff(given) < 0) or given.min() < 0 or given.max() >= n_trs:
        raise ValueError(
            f"split_indices: expected TRs from 0 to {n_trs - 1} that do not run backwards, got "
            f"{given.min()} to {given.max()}; sort the words by time."
        )
    return np.searchsorted(given, np.arange(1, n_trs))


@dataclass
class FIR:
    """Delayed copies of features: `FIR.make_delayed(X, delays)`, or `FIR(delays).expand(X)`."""

    delays: Iterable[int] | None = None
    circpad: bool = False

    def expand(self, stim: Array) -> Array:
        """(n_trs, n_features x n_delays); as `make_delayed` with this object's delays."""
        if self.delays is None:
            raise ValueError("FIR: expected delays, got none; make it with FIR([1, 2, 3, 4]).")
        return self.make_delayed(stim, self.delays, self.circpad)

    @staticmethod
    def make_delayed(stim: Array, delays: Iterable[int], circpad: bool = False) -> Array:
        """(n_trs, n_features x n_delays), as `encoding_nb.add_delays`."""
        return add_delays(stim, list(delays), circular=circpad)


# what LITcoder's trainer takes when nobody says anything
LAYER_IDX, LOOKBACK = 9, 256
KEYS = {
    "language_model": (
        "model_name",
        "layer_idx",
        "last_token",
        "lookback",
        "context_type",
        "hook_type",
        "device",
        "stride",
        "processing",
        "use_stored_contexts",
    ),
    "wordrate": ("model_name",),
    "embeddings": (
        "model_name",
        "vector_path",
        "binary",
        "no_header",
        "lowercase",
        "oov_handling",
        "l2_normalize_tokens",
        "tokenizer_pattern",
        "use_tqdm",
        "mmap",
    ),
}
# keys whose one value is what this package does, and why it does no other
FIXED: Mapping[str, tuple[Any, str]] = {
    "hook_type": ("hook_resid_pre", "residual streams are what a layer number counts"),
    "oov_handling": (
        "zero",
        "a word without a vector is 0 and counted in a warning, not given its neighbour's",
    ),
    "lowercase": (False, "a word is looked for as it is written, and then in lower case"),
    "l2_normalize_tokens": (False, "vectors are used as their file has them"),
    "tokenizer_pattern": (None, "words are those of the transcript and are not split again"),
}
WHOLE = ("layer_idx", "lookback")
FLAGS = ("last_token", "use_stored_contexts", "binary", "no_header")


@dataclass(frozen=True)
class FeatureExtractor:
    """One feature space, as `FeatureExtractorFactory.create_extractor` made it.

    Attributes
    ----------
    modality : "language_model", "wordrate" or "embeddings"
    config : mapping
        Only what was given, and the model's name.
    cache_dir : folder for activations; None is the one that the whole package shares
    """

    modality: str
    config: Mapping[str, Any]
    cache_dir: str | Path | None = None

    @property
    def model_name(self) -> str:
        """The model's name."""
        return self.config["model_name"]

    @property
    def memory(self) -> Any:
        """The joblib.Memory where activations are kept."""
        if self.cache_dir is None:
            return default_memory()
        from joblib import Memory

        return Memory(str(self.cache_dir), verbose=0)

    @property
    def vectors(self) -> str | None:
        """The file of word vectors of modality "embeddings"; None where they are a model's input embedding."""
        if self.config.get("vector_path") is not None:
            return str(self.config["vector_path"])
        return self.model_name if is_vector_file(self.model_name) else None

    @property
    def settings(self) -> dict[str, Any]:
        """The fields of `Settings` that say the same; layer and lookback only where they were given."""
        if self.modality == "wordrate":
            return {}
        if self.modality == "embeddings":
            return {"model_name": self.model_name} if self.vectors is None else {"embedding": self.vectors}
        known = (
            "layer_idx",
            "lookback",
            "last_token",
            "context_type",
            "device",
            "stride",
            "use_stored_contexts",
        )
        return {
            "model_name": self.model_name,
            # LITcoder reads folded and centred weights, TransformerLens' former default
            "processing": self.config.get("processing", "litcoder"),
            **{name: self.config[name] for name in known if name in self.config},
        }

    def extract_features(self, stimuli: str | Sequence[str], layer_idx: int | None = None) -> Array:
        """(n_texts, n_features) features of texts that are windows already, or of words for embeddings.

        Word rates are features as they are, (n_trs,) or (n_trs, 1) to (n_trs, 1).
        """
        if self.modality == "wordrate":
            return np.asarray(stimuli, dtype=np.float32).reshape(-1, 1)
        texts = [stimuli] if isinstance(stimuli, str) else list(stimuli)
        if self.modality == "embeddings":
            if self.vectors is None:
                return token_embeddings(texts, self.model_name)
            return file_embeddings(texts, self.vectors)
        given = self.settings
        spec = ActivationSpec(
            self.model_name,
            last_token=given.get("last_token", True),
            processing=given["processing"],
            # the texts are the windows, so a lookback has no part in them
            lookback=1,
        )
        layer = given.get("layer_idx", LAYER_IDX) if layer_idx is None else layer_idx
        return layer_activations(texts, spec, layer_idx=layer, contexts=texts, memory=self.memory)


class FeatureExtractorFactory:
    """LITcoder's way to a feature space."""

    @classmethod
    def create_extractor(
        cls,
        modality: str,
        model_name: str,
        config: Mapping[str, Any] | None = None,
        cache_dir: str | Path | None = None,
    ) -> FeatureExtractor:
        """A feature space; nothing is loaded before it is needed.

        Parameters
        ----------
        modality : "language_model", "wordrate" or "embeddings"
        model_name : as `Settings.model_name`
        config : mapping
            LITcoder's keys for the modality (`KEYS`). Beside them, for a language model: `processing`
            ("litcoder" here, whose weights LITcoder reads, or "raw"), `stride`, and `use_stored_contexts`: True
            reads the windows that came with the data, False makes windows of `lookback` tokens, and without it
            the trainer reads stored windows where there are some, since LITcoder knows no others.
            For embeddings: `vector_path`, a file of word vectors (binary where its name has .bin, and with or
            without a header, which is found out), or none for the model's input embedding. Words that the file
            does not have are 0 and are counted in a warning, where LITcoder repeats the word before; `use_tqdm`
            and `mmap` change nothing.
        cache_dir : folder for activations; None is the one that the whole package shares

        Raises
        ------
        ValueError
            An unknown modality or key, a value that this package does not have, or two model names.
        TypeError
            A config that is no mapping, or a value of another kind.
        """
        config = as_mapping({} if config is None else config, "config", '{"layer_idx": 9}')
        if modality not in KEYS:
            raise ValueError(f"Unknown modality {modality!r}; this package has {', '.join(KEYS)}.")
        refuse_unknown(config, KEYS[modality], f"config of {modality}")
        if config.setdefault("model_name", model_name) != model_name:
            raise ValueError(
                f"model_name is {model_name!r} but config names {config['model_name']!r}; give the same one twice, or "
                f"leave it out of config."
            )
        for name, (only, why) in FIXED.items():
            if name in config and (type(config[name]), config[name]) != (type(only), only):
                raise ValueError(
                    f"config of {modality}: {name} can be {only!r} only here, got {config[name]!r}: {why}; "
                    f"leave it out."
                )
        for names, made in ((WHOLE, as_whole), (FLAGS, as_flag)):
            for name in (name for name in names if config.get(name) is not None):
                config[name] = made(config[name], f"config of {modality}: {name}")
        _refuse_other_format(config)
        return FeatureExtractor(modality, config, cache_dir)

    @classmethod
    def get_supported_modalities(cls) -> list[str]:
        """Names of the modalities."""
        return list(KEYS)


def _refuse_other_format(config: Mapping[str, Any]) -> None:
    """A ValueError where `binary` says otherwise than the reader, which goes by the file's name."""
    path, binary = config.get("vector_path"), config.get("binary")
    if path is None or binary is None or binary == (".bin" in Path(path).suffixes):
        return
    kind, other = ("binary", "has no") if binary else ("text", "has a")
    raise ValueError(
        f"config of embeddings: binary={binary} but {path} {other} .bin in its name, by which it is told here whether "
        f"a file is binary; rename the file if it is {kind}, or leave binary out."
    )
