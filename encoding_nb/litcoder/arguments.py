"""What the trainer is given, as `Settings`; what cannot be is one sentence here."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

from ..assembly import Assembly
from ..design import Trimming
from ..ridge import huth_alphas
from ..settings import Settings, split_stories
from .downsampling import OPTIONS, plain_method
from .extractors import LAYER_IDX, LOOKBACK, FeatureExtractor
from .model import PREDICTION_FLOOR, FitOptions
from .names import as_mapping, as_whole, refuse_unknown
from .stored_boundaries import StoredBoundaries, stored_boundaries, stories_without

# LITcoder's names for a run without a test set; there they cut the ends of all stories stacked
STACKED_KEYS = ("features_start", "features_end", "targets_start", "targets_end")
DOWNSAMPLE_KEYS = {"method": "downsample_method", "window": "downsample_window", "cutoff_mult": "cutoff_mult"}


def refuse_other(name: str, value: Any, expected: type) -> None:
    """A TypeError where a value is not of one of this package's kinds."""
    if not isinstance(value, expected):
        raise TypeError(
            f"{name}: expected a {expected.__name__} of encoding_nb.litcoder, got a {type(value).__name__}; for one of "
            f"your own, call the functions of encoding_nb.design and encoding_nb.ridge."
        )


def checked_extractors(given: Sequence[FeatureExtractor]) -> list[FeatureExtractor]:
    """The extractors, one or more."""
    if isinstance(given, FeatureExtractor):
        raise TypeError("feature_extractors: expected a list, got a single one; write [extractor].")
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise TypeError(f"feature_extractors: expected a list of extractors, got {given!r}.")
    extractors = list(given)
    if not extractors:
        raise ValueError("feature_extractors: expected one or more, got none.")
    for extractor in extractors:
        refuse_other("feature_extractors", extractor, FeatureExtractor)
    return extractors


def feature_settings(
    extractors: Sequence[FeatureExtractor], layer_idx: int | None, lookback: int | None
) -> dict[str, Any]:
    """The settings that the extractors and the trainer's own layer and lookback make together."""
    settings: dict[str, Any] = {}
    for extractor in extractors:
        own = extractor.settings
        if own.get("model_name", name := settings.get("model_name")) != name and name is not None:
            raise ValueError(
                f"feature_extractors: expected one model for the language model and the embeddings, got {name!r} and "
                f"{own['model_name']!r}; give both the same, or embeddings from a file (vector_path)."
            )
        settings |= own
    modalities = [extractor.modality for extractor in extractors]
    settings |= {"modality": modalities[0], "joined_with": tuple(modalities[1:])}
    if "language_model" not in modalities:
        return settings
    for name, given, usual in (("layer_idx", layer_idx, LAYER_IDX), ("lookback", lookback, LOOKBACK)):
        own = settings.get(name)
        given = None if given is None else as_whole(given, name)
        if own is not None and given is not None and own != given:
            raise ValueError(
                f"{name}: the extractor's config says {own!r} and the trainer {given!r}; give one of them, or the same "
                f"twice (LITcoder would take the trainer's)."
            )
        if own is not None and given is None and own != usual:
            warnings.warn(
                f"{name} is {own}, from the extractor's config; LITcoder would take its trainer's default, {usual}.",
                stacklevel=3,
            )
        settings[name] = next(value for value in (given, own, usual) if value is not None)
    # None: decided when the data are known
    return {"use_stored_contexts": None, **settings}


def with_windows(settings: Settings, assembly: Assembly) -> Settings:
    """Stored windows where the data carry them and nobody said otherwise, as LITcoder has no other."""
    if settings.use_stored_contexts is not None:
        return settings
    stored = all(settings.context_type in (story.contexts or {}) for story in assembly.stories.values())
    if stored:
        warnings.warn(
            f"The windows stored with the data are read, as in LITcoder, so lookback={settings.lookback} changes "
            f"nothing; use_stored_contexts=False in the extractor's config makes windows of that length instead.",
            stacklevel=3,
        )
    return replace(settings, use_stored_contexts=stored)


def delay_settings(given: Sequence[int]) -> tuple[int, ...]:
    """The delays, whole numbers of TRs."""
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise TypeError(f"fir_delays: expected a list of TRs, got {given!r}; try [1, 2, 3, 4].")
    return tuple(as_whole(delay, "fir_delays") for delay in given)


def downsample_settings(config: Mapping[str, Any] | None) -> dict[str, Any]:
    """The settings that a downsample_config makes."""
    config = as_mapping({} if config is None else config, "downsample_config", '{"method": "lanczos"}')
    for name in config:
        if name not in DOWNSAMPLE_KEYS and name in OPTIONS:
            raise ValueError(
                f"downsample_config: {name} is not among a fit's settings, which are {', '.join(DOWNSAMPLE_KEYS)}; "
                f"Downsampler().downsample(..., {name}=...) takes it, for features of your own."
            )
    refuse_unknown(config, DOWNSAMPLE_KEYS, "downsample_config")
    settings = {DOWNSAMPLE_KEYS[name]: value for name, value in config.items()}
    return settings | {"downsample_method": plain_method(config.get("method", "rect"))}


def inputs_of(
    config: Mapping[str, Any] | None, assembly: Assembly, settings: Settings
) -> StoredBoundaries | None:
    """The stored TR boundaries for LITcoder's legacy methods, looked at now; None where they have no part."""
    method = (config or {}).get("method", "rect")
    if not method.startswith("legacy_"):
        return None
    split = split_stories(assembly, settings)
    names = [*split.train, *split.test]
    if without := stories_without(assembly, names):
        warnings.warn(
            f"downsample_config: {method} goes by the TR boundaries that come with LITcoder's assemblies, which "
            f"{', '.join(without)} came without; a word belongs to the TR nearest its middle, in all stories.",
            stacklevel=3,
        )
        return None
    for name in names:
        stored_boundaries(assembly.stories[name])
    return StoredBoundaries()


def trimming_of(config: Mapping[str, int | None], *, split: bool, n_stories: int) -> Trimming:
    """The trimming, from this package's keys or from LITcoder's for stacked stories where there is one story."""
    config = as_mapping(config, "trimming_config", '{"train_features_start": 10, "train_features_end": -5}')
    keys = tuple(field.name for field in fields(Trimming))
    stacked = [name for name in config if name in STACKED_KEYS]
    if stacked and (split or n_stories > 1):
        raise ValueError(
            f"trimming_config: {stacked[0]} cuts the ends of all stories stacked, in LITcoder; here every story is "
            f"trimmed, so say train_{stacked[0]}."
        )
    refuse_unknown(config, (*keys, *STACKED_KEYS), "trimming_config")
    return Trimming(**{f"train_{name}" if name in STACKED_KEYS else name: n for name, n in config.items()})


def story_settings(assembly: Assembly, selection: int | Sequence[str] | None, split: bool) -> dict[str, Any]:
    """The settings' stories and test stories."""
    names = list(assembly.stories)
    if selection is None:
        test = assembly.test_stories or (names[-1],)
        return {"stories": None, "test_stories": test if split else None}
    if isinstance(selection, str):
        raise ValueError(
            f"story_selection: expected a list of names, got {selection!r}; write [{selection!r}]."
        )
    if not isinstance(selection, Iterable):
        selection = as_whole(
            selection, "story_selection, which may be a list of names or the number of a story"
        )
        if not 1 <= selection <= len(names):
            raise ValueError(f"story_selection: expected a number from 1 to {len(names)}, got {selection}.")
        selection = [names[selection - 1]]
    selection = tuple(selection)
    if not all(isinstance(name, str) for name in selection) or len(set(selection)) < len(selection):
        raise ValueError(f"story_selection: expected names of stories, each once, got {list(selection)}.")
    own = [name for name in assembly.test_stories if name in selection]
    if split and own and selection[-1] not in own:
        raise ValueError(
            f"story_selection: the last story, {selection[-1]}, would be held out and {own[0]}, the data's test story, "
            f"fitted; put {own[0]} last."
        )
    return {"stories": selection, "test_stories": selection[-1:] if split else None}


def fitted_by(settings: Settings, options: FitOptions) -> Settings:
    """The settings with the fit that `train` was asked for."""
    if (options.normalize_features or options.normalize_targets) and not settings.use_train_test_split:
        raise ValueError(
            "normalize_features and normalize_targets: stories are z-scored one by one before cross-validation here; "
            "leave them out."
        )
    return replace(
        settings,
        alphas=tuple(float(alpha) for alpha in huth_alphas(options.alphas)),
        normalpha=options.normalpha,
        prediction_floor=PREDICTION_FLOOR,
        single_alpha=options.single_alpha,
        use_corr=options.use_corr,
        folding_type=options.folding_type,
        n_inner_folds=options.n_inner_folds,
        n_outer_folds=options.n_outer_folds,
        chunk_length=options.chunk_length,
        fdr_q=options.alpha_fdr,
        seed=options.seed,
        device=settings.device if options.use_gpu else "cpu",
    )
