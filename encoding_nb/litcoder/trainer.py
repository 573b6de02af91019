"""LITcoder's trainer: its arguments as `Settings`, one call of the pipeline, its metrics."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from .. import features, pipeline, records
from .._progress import Count
from .._validation import as_mapping, as_whole, refuse_unknown
from ..assembly import Array, Assembly, Story
from ..design import Trimming, words_to_trs
from ..pipeline import Result, split_stories
from ..records import check_results_dir
from ..ridge import huth_alphas
from ..settings import Settings, SettingsError
from .assembly import LitcoderAssembly
from .features import LAYER_IDX, LOOKBACK, OPTIONS, Downsampler, FeatureExtractor, boundaries, plain_method
from .model import PREDICTION_FLOOR, FitOptions, NestedCVModel, litcoder_metrics


class StoredBoundaries(pipeline.Inputs):
    """What a run reads when words belong to TRs by `Story.extras["split_indices"]`."""

    def sampled(
        self, plan: pipeline.Plan, story: Story, progress: Count | None = None
    ) -> features.JoinedFeatures:
        """As `pipeline.sample_story`, with the story's own boundaries."""
        return features.joined_features(
            story,
            plan.specs,
            downsample_method=plan.settings.downsample_method,
            downsample_options={"split_indices": stored_boundaries(story)},
            memory=plan.memory,
            device=plan.settings.device,
            progress=progress,
        )


def stored_boundaries(story: Story) -> Array:
    """(n_trs - 1,) first words of all TRs but the first; a ValueError, naming the story, where they do not fit."""
    try:
        found = boundaries(story.extras["split_indices"], len(story.words), story.n_trs, legacy=True)
        words_to_trs(story.words.times, story.tr_times, split_indices=found)  # refuses what runs backwards
    except ValueError as error:
        raise ValueError(f"{story.name}: {error}") from error
    return found


def stories_without(assembly: Assembly, names: Sequence[str] | None) -> list[str]:
    """The stories, of those named or of all, that came without boundaries."""
    names = list(assembly.stories) if names is None else names
    return [name for name in names if "split_indices" not in assembly.stories[name].extras]


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


# settings that `train` may still change
FIT_FIELDS = ("folding_type", "n_inner_folds", "n_outer_folds", "chunk_length", "alphas", "fdr_q", "seed")


class AbstractTrainer:
    """One fit by LITcoder's arguments. What cannot be is refused here, before `train`.

    Parameters
    ----------
    assembly : LitcoderAssembly or Assembly
    feature_extractors : of different modalities; their columns stand side by side
    downsampler : Downsampler
    model : NestedCVModel
    fir_delays : TRs
    trimming_config : the tutorial's eight keys, see `design.Trimming`
        Without a test set the four that start with `train_` hold for every story. For a single story
        LITcoder's features_start, features_end, targets_start and targets_end are taken as well.
    use_train_test_split : fit on all stories but the last and score on that one, or, as False (LITcoder's
        default), score every story by nested cross-validation
        Either way features and BOLD are z-scored per story; LITcoder does so with a test set only.
    layer_idx, lookback : residual stream, and tokens of context
        Also keys of an extractor's config. Where both are given they must agree; where one is, it holds;
        where none is, 9 and 256. (In LITcoder the trainer's hold, its defaults too.) A lookback makes the
        windows, unless the data came with windows of their own: those are read then, as in LITcoder, and a
        warning says so; an extractor's config can say otherwise (use_stored_contexts).
    dataset_type : kept in the record
    logger_backend : "none", "tensorboard" or "wandb"
    wandb_project_name : project for Weights & Biases
    results_dir : folder of records
    run_name : for record and logger
    downsample_config : method ("rect" unless given), window, cutoff_mult
        The methods that begin with legacy_ go by the TR boundaries that came with the data, as in LITcoder;
        where there are none a warning says that words belong to the TR nearest their middle.
    story_selection : names, or the number of one story from 1
        The last one is the test story. None takes all stories, and the data's own test stories where it
        names any.
    progress : show a bar

    Attributes
    ----------
    settings : Settings
    result : Result, after `train`
    record : folder of the run, after `train`

    Raises
    ------
    ValueError
        Unknown keys, contradictions, a trimming that leaves no rows, a results_dir that cannot be written, and
        all else that `pipeline.check` finds.
    TypeError
        An argument of another kind.
    loggers.LoggerError
        A logger that is not installed or has no login.
    """

    def __init__(
        self,
        assembly: LitcoderAssembly | Assembly,
        feature_extractors: Sequence[FeatureExtractor],
        downsampler: Downsampler,
        model: NestedCVModel,
        fir_delays: Sequence[int],
        trimming_config: Mapping[str, int | None],
        use_train_test_split: bool = False,
        layer_idx: int | None = None,
        lookback: int | None = None,
        dataset_type: str = "unknown",
        logger_backend: str | None = "none",
        wandb_project_name: str = "abstract-trainer",
        results_dir: str | Path = "results",
        run_name: str | None = None,
        downsample_config: Mapping[str, Any] | None = None,
        story_selection: int | Sequence[str] | None = None,
        progress: bool = True,
    ) -> None:
        self.assembly = assembly.assembly if isinstance(assembly, LitcoderAssembly) else assembly
        if not isinstance(self.assembly, Assembly):
            raise TypeError(
                f"assembly: expected what load_assembly gives, got a {type(assembly).__name__}; write "
                f"load_assembly(...) around a path."
            )
        self.feature_extractors = checked_extractors(feature_extractors)
        refuse_other("downsampler", downsampler, Downsampler)
        refuse_other("model", model, NestedCVModel)
        self.dataset_type, self.results_dir, self.run_name = dataset_type, results_dir, run_name
        self.logger_backend, self.wandb_project_name = logger_backend, wandb_project_name
        self.progress = progress
        chosen = story_settings(self.assembly, story_selection, use_train_test_split)
        n_stories = len(self.assembly.stories if chosen["stories"] is None else chosen["stories"])
        self.settings = Settings(
            **feature_settings(self.feature_extractors, layer_idx, lookback),
            **downsample_settings(downsample_config),
            **chosen,
            fir_delays=delay_settings(fir_delays),
            trimming=trimming_of(trimming_config, split=use_train_test_split, n_stories=n_stories),
            use_train_test_split=use_train_test_split,
            alternative="two-sided",
            significance="parametric",
        )
        self.settings = fitted_by(with_windows(self.settings, self.assembly), FitOptions())
        records.check_logger(logger_backend)
        check_results_dir(results_dir)
        for field, problem in pipeline.check(self.assembly, self.settings).items():
            if field not in FIT_FIELDS:
                raise SettingsError(field, problem)
        self._inputs = inputs_of(downsample_config, self.assembly, self.settings)
        self.result: Result | None = None
        self.record: Path | None = None

    def train(self, **model_kwargs: Any) -> dict[str, Any]:
        """Run the fit, write its record, log it, and return LITcoder's metrics (`model.litcoder_metrics`).

        Parameters
        ----------
        model_kwargs : of `NestedCVModel.fit_predict`, such as alphas, n_inner_folds or folds
            `folds` are pairs of (train, test) row numbers over the training stories' kept rows below each
            other, in place of the inner folds.

        Raises
        ------
        ValueError
            As when the trainer was made; an unknown name; z-scoring asked for in cross-validation.
        """
        options = FitOptions.of(model_kwargs)
        settings = fitted_by(self.settings, options)
        memory = next((e.memory for e in self.feature_extractors if e.modality == "language_model"), None)
        result = pipeline.run(
            self.assembly,
            settings,
            memory=memory,
            progress=self.progress,
            inner_folds=options.folds,
            inputs=self._inputs,
        )
        alphas = np.sqrt(np.atleast_2d(result.best_alphas)).mean(axis=0)
        metrics = litcoder_metrics(result.scores, result.pvalues, alphas, alpha_fdr=options.alpha_fdr)
        self.settings, self.result = settings, result
        numbers = {name: value for name, value in metrics.items() if not isinstance(value, list)}
        self.record = records.save_and_log(
            result,
            self.results_dir,
            backend=self.logger_backend,
            project=self.wandb_project_name,
            run_name=self.run_name,
            metrics=metrics,
            assembly=self.assembly,
            extra={
                "litcoder": {
                    "dataset_type": self.dataset_type,
                    "metrics": numbers,
                    "stored_tr_boundaries": self._inputs is not None,
                },
                "given_folds": options.folds is not None,
            },
        )
        return metrics
