"""LITcoder's feature extractors, downsampler and FIR."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .. import features
from .._validation import as_mapping, check_known
from ..assembly import Array
from ..design import DOWNSAMPLERS, add_delays, downsample

# these go by the words of each TR, as `downsample` does
LEGACY = {f"legacy_{method}": method for method in ("average", "sum", "last")}


class Downsampler:
    """Word features to TRs, by LITcoder's method names."""

    @property
    def available_methods(self) -> list[str]:
        """Names of the methods."""
        return [*DOWNSAMPLERS, *LEGACY]

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
            Words' TRs that run backwards or do not exist, and as `encoding_nb.downsample`.
        """
        given = options.get("split_indices")
        if given is not None and len(given) == len(data) and method not in LEGACY:
            options["split_indices"] = _first_words(np.asarray(given, dtype=int), len(tr_times))
        return downsample(data, data_times, tr_times, method=LEGACY.get(method, method), **options)


def _first_words(trs: Array, n_trs: int) -> Array:
    """(n_trs - 1,) first words of all TRs but the first, from each word's TR."""
    if np.any(np.diff(trs) < 0) or trs.min() < 0 or trs.max() >= n_trs:
        raise ValueError(
            f"split_indices: expected TRs from 0 to {n_trs - 1} that do not run backwards, got {trs.min()} to "
            f"{trs.max()}; sort the words by time."
        )
    return np.searchsorted(trs, np.arange(1, n_trs))


@dataclass
class FIR:
    """Delayed copies of features: `FIR.make_delayed(X, delays)`, or `FIR(delays).expand(X)`."""

    delays: Iterable[int] = ()
    circpad: bool = False

    def expand(self, stim: Array) -> Array:
        """(n_trs, n_features x n_delays); as `make_delayed` with this object's delays."""
        return self.make_delayed(stim, self.delays, self.circpad)

    @staticmethod
    def make_delayed(stim: Array, delays: Iterable[int], circpad: bool = False) -> Array:
        """(n_trs, n_features x n_delays), as `encoding_nb.add_delays`."""
        return add_delays(stim, list(delays), circular=circpad)


LAYER_IDX, LOOKBACK = 9, 256  # defaults of LITcoder's trainer
# the keys of a language model's config that are settings of the same name
MODEL_KEYS = "layer_idx last_token lookback context_type device stride use_stored_contexts".split()
VECTOR_KEYS = ("vector_path", "binary", "no_header", "use_tqdm", "mmap")
# keys that can have one value only, since this package does nothing else
FIXED: Mapping[str, tuple[Any, str]] = {
    "hook_type": ("hook_resid_pre", "a layer number counts residual streams"),
    "oov_handling": ("zero", "a word without a vector is 0 and counted in a warning"),
    "lowercase": (False, "a word is looked up as it is written, and then in lower case"),
    "l2_normalize_tokens": (False, "vectors are used as their file has them"),
    "tokenizer_pattern": (None, "words are those of the transcript and are not split again"),
}
KEYS = {
    "language_model": ("model_name", *MODEL_KEYS, "processing", "hook_type"),
    "wordrate": ("model_name",),
    "embeddings": ("model_name", *VECTOR_KEYS, *(name for name in FIXED if name != "hook_type")),
}


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
        """Where activations are kept: `cache_dir`, else `features.default_memory()`."""
        return features.default_memory() if self.cache_dir is None else self.cache_dir

    @property
    def vectors(self) -> str | None:
        """The file of word vectors of modality "embeddings"; None where they are a model's input embedding."""
        if self.config.get("vector_path") is not None:
            return str(self.config["vector_path"])
        return self.model_name if features.is_vector_file(self.model_name) else None

    @property
    def settings(self) -> dict[str, Any]:
        """The fields of `Settings` that say the same; layer and lookback only where they were given."""
        if self.modality == "wordrate":
            return {}
        if self.modality == "embeddings":
            return {"model_name": self.model_name} if self.vectors is None else {"embedding": self.vectors}
        return {
            "model_name": self.model_name,
            # LITcoder reads folded and centred weights, TransformerLens' former default
            "processing": self.config.get("processing", "litcoder"),
            **{name: self.config[name] for name in MODEL_KEYS if name in self.config},
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
                return features.token_embeddings(texts, self.model_name)
            return features.file_embeddings(texts, self.vectors)
        given = self.settings
        last_token, processing = given.get("last_token", True), given["processing"]
        # the texts are the windows, so a lookback has no part in them
        spec = features.ActivationSpec(
            self.model_name, lookback=1, last_token=last_token, processing=processing
        )
        layer = given.get("layer_idx", LAYER_IDX) if layer_idx is None else layer_idx
        return features.layer_activations(texts, spec, layer_idx=layer, contexts=texts, memory=self.memory)


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
            LITcoder's keys for the modality (`KEYS`). Besides, for a language model: `processing`
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
            A config that is not a mapping.
        """
        config = as_mapping(config or {}, "config", '{"layer_idx": 9}')
        if modality not in KEYS:
            raise ValueError(f"Unknown modality {modality!r}; this package has {', '.join(KEYS)}.")
        check_known(config, KEYS[modality], f"config of {modality}")
        if config.setdefault("model_name", model_name) != model_name:
            raise ValueError(
                f"model_name is {model_name!r} but config names {config['model_name']!r}; give the same one twice, or "
                f"leave it out of config."
            )
        for name, (only, why) in FIXED.items():
            if name in config and (type(config[name]), config[name]) != (type(only), only):
                raise ValueError(
                    f"config of {modality}: {name} can only be {only!r} here, got {config[name]!r}: {why}; leave it "
                    f"out."
                )
        path, binary = config.get("vector_path"), config.get("binary")
        if None not in (path, binary) and binary != (".bin" in Path(path).suffixes):
            raise ValueError(
                f"config of embeddings: binary={binary} but {path} has {'no' if binary else 'a'} .bin in its name, "
                f"which decides here whether a file is binary; rename the file, or leave binary out."
            )
        return FeatureExtractor(modality, config, cache_dir)

    @classmethod
    def get_supported_modalities(cls) -> list[str]:
        """Names of the modalities."""
        return list(KEYS)
