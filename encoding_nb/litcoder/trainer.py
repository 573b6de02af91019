"""LITcoder's trainer: translates its arguments to `Settings`, calls the pipeline, and returns LITcoder's metrics."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from .. import pipeline, records
from .._validation import as_mapping, as_whole, check_known
from ..assembly import Array, Assembly
from ..design import words_to_trs
from ..pipeline import Result
from ..ridge import huth_alphas
from ..settings import Settings, SettingsError
from .assembly import LitcoderAssembly
from .features import LAYER_IDX, LEGACY, LOOKBACK, Downsampler, FeatureExtractor
from .model import FIT_OPTIONS, PREDICTION_FLOOR, NestedCVModel, fit_options, litcoder_metrics

# LITcoder's names for a run without a test set; there they cut the ends of all stories stacked
STACKED_KEYS = ("features_start", "features_end", "targets_start", "targets_end")
DOWNSAMPLE_KEYS = {"method": "downsample_method", "window": "downsample_window", "cutoff_mult": "cutoff_mult"}


def _feature_settings(
    extractors: Sequence[FeatureExtractor],
    assembly: Assembly,
    layer_idx: int | None,
    lookback: int | None,
) -> dict[str, Any]:
    """The settings of the extractors, with the trainer's layer and lookback and the windows of the data."""
    settings: dict[str, Any] = {}
    for extractor in extractors:
        own = extractor.settings
        if {"model_name"} <= settings.keys() & own.keys() and own["model_name"] != settings["model_name"]:
            raise ValueError(
                f"feature_extractors: expected one model for the language model and the embeddings, got "
                f"{settings['model_name']!r} and {own['model_name']!r}; give both the same, or embeddings from a file "
                f"(vector_path)."
            )
        settings |= own
    modalities = [extractor.modality for extractor in extractors]
    settings |= {
        "modality": modalities[0],
        "joined_with": tuple(modalities[1:]),
        "word_rate_bins": "litcoder",
    }
    if "language_model" not in modalities:
        return settings
    for name, given, usual in (("layer_idx", layer_idx, LAYER_IDX), ("lookback", lookback, LOOKBACK)):
        own = settings.get(name)
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
    if settings.get("use_stored_contexts") is None:  # LITcoder reads stored windows if the data have them
        context_type = settings.get("context_type", Settings.context_type)
        stored = all(context_type in (story.contexts or {}) for story in assembly.stories.values())
        settings["use_stored_contexts"] = stored
        if stored:
            warnings.warn(
                f"The windows stored with the data are read, as in LITcoder, so lookback={settings['lookback']} "
                f"changes nothing; use_stored_contexts=False in the extractor's config makes windows of that length.",
                stacklevel=3,
            )
    return settings


def _stored_boundaries(method: str, assembly: Assembly, settings: Settings) -> dict[str, Array] | None:
    """{story: (n_trs - 1,) first words of all TRs but the first} for LITcoder's legacy methods; None for others.

    None with a warning if some stories came without them; a ValueError that names the story if they do not fit it.
    """
    if method not in LEGACY:
        return None
    split = pipeline.split_stories(assembly, settings)
    stories = [assembly.stories[name] for name in (*split.train, *split.test)]
    without = [story.name for story in stories if "split_indices" not in story.extras]
    if without:
        warnings.warn(
            f"downsample_config: {method} uses the TR boundaries that come with LITcoder's assemblies, and "
            f"{', '.join(without)} came without; a word belongs to the TR nearest its middle, in all stories.",
            stacklevel=3,
        )
        return None
    found: dict[str, Array] = {}
    for story in stories:
        try:
            found[story.name] = np.asarray(story.extras["split_indices"], dtype=int)
            # refuses other numbers than of TRs, and decreasing ones
            words_to_trs(story.words.times, story.tr_times, split_indices=found[story.name].tolist())
        except ValueError as error:
            raise ValueError(f"{story.name}: {error}") from error
    return found


def _trimming(config: Mapping[str, int | None], *, split: bool, n_stories: int) -> dict[str, Any]:
    """The setting `trimming`, from this package's keys or, for a single story, from LITcoder's for stacked stories."""
    config = as_mapping(config, "trimming_config", '{"train_features_start": 10, "train_features_end": -5}')
    stacked = [name for name in config if name in STACKED_KEYS]
    if stacked and (split or n_stories > 1):
        raise ValueError(
            f"trimming_config: {stacked[0]} cuts the ends of all stories stacked, in LITcoder; here every story is "
            f"trimmed, so say train_{stacked[0]}."
        )
    return {"trimming": {f"train_{name}" if name in STACKED_KEYS else name: n for name, n in config.items()}}


def _story_settings(assembly: Assembly, selection: int | Sequence[str] | None, split: bool) -> dict[str, Any]:
    """The settings' stories and test stories."""
    names = list(assembly.stories)
    if selection is None:
        test = assembly.test_stories or (names[-1],)
        return {"stories": None, "test_stories": test if split else None}
    if not isinstance(selection, Iterable):
        number = as_whole(selection, "story_selection, which may be a list of names or the number of a story")
        if not 1 <= number <= len(names):
            raise ValueError(f"story_selection: expected a number from 1 to {len(names)}, got {number}.")
        selection = [names[number - 1]]
    selection = (selection,) if isinstance(selection, str) else tuple(selection)
    own = [name for name in assembly.test_stories if name in selection]
    if split and own and selection[-1] not in own:
        raise ValueError(
            f"story_selection: the last story, {selection[-1]}, would be held out and {own[0]}, the data's test story, "
            f"fitted; put {own[0]} last."
        )
    return {"stories": selection, "test_stories": selection[-1:] if split else None}


def _fitted_by(settings: Settings, options: Mapping[str, Any]) -> Settings:
    """The settings with the options of `train`."""
    if (options["normalize_features"] or options["normalize_targets"]) and not settings.use_train_test_split:
        raise ValueError(
            "normalize_features and normalize_targets: each outer fold z-scores stories one by one here, by the rows "
            "that it trains on; leave them out."
        )
    same = {field.name for field in fields(Settings)} & options.keys() - {"alphas"}
    # LITcoder makes outer folds as it makes inner ones
    outer: dict[str, Any] = {"outer_folding_type": options["folding_type"], "outer_gap": 0.0}
    return replace(
        settings,
        **{name: options[name] for name in same},
        **({} if settings.use_train_test_split else outer),
        alphas=tuple(huth_alphas(options["alphas"])),
        prediction_floor=PREDICTION_FLOOR,
        fdr_q=options["alpha_fdr"],
        device=settings.device if options["use_gpu"] else "cpu",
    )


class AbstractTrainer:
    """One fit by LITcoder's arguments. Invalid arguments raise an error here, before `train`.

    Parameters
    ----------
    assembly : LitcoderAssembly or Assembly
    feature_extractors : of different modalities; their columns are joined
    downsampler : Downsampler
    model : NestedCVModel
    fir_delays : TRs
    trimming_config : the tutorial's eight keys, see `design.Trimming`
        Without a test set the four that start with `train_` hold for every story. For a single story
        LITcoder's features_start, features_end, targets_start and targets_end are taken as well.
    use_train_test_split : fit on all stories but the last and score on that one, or, as False (LITcoder's
        default), score every story by nested cross-validation
        Either way features and BOLD are z-scored per story (in cross-validation by the rows that a fold trains on);
        LITcoder does so with a test set only. Outer folds are of the `folding_type` of `train`, as in LITcoder, and
        without a gap: prefer `run`, with its own outer folds and significance="shift", where p-values matter.
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
        given = feature_extractors if isinstance(feature_extractors, Iterable) else [feature_extractors]
        self.feature_extractors = list(given)
        if not self.feature_extractors:
            raise ValueError("feature_extractors: expected one or more, got none.")
        kinds = [("downsampler", downsampler, Downsampler), ("model", model, NestedCVModel)]
        kinds += [
            ("feature_extractors", extractor, FeatureExtractor) for extractor in self.feature_extractors
        ]
        for name, value, kind in kinds:
            if not isinstance(value, kind):
                raise TypeError(
                    f"{name}: expected a {kind.__name__} of encoding_nb.litcoder, got a {type(value).__name__}; for "
                    f"one of your own, call the functions of encoding_nb.design and encoding_nb.ridge."
                )
        self.dataset_type, self.results_dir, self.run_name = dataset_type, results_dir, run_name
        self.logger_backend, self.wandb_project_name = logger_backend, wandb_project_name
        self.progress = progress
        sampling = as_mapping(downsample_config or {}, "downsample_config", '{"method": "lanczos"}')
        check_known(sampling, DOWNSAMPLE_KEYS, "downsample_config")
        method = sampling.pop("method", "rect")
        chosen = _story_settings(self.assembly, story_selection, use_train_test_split)
        n_stories = len(self.assembly.stories if chosen["stories"] is None else chosen["stories"])
        self.settings = Settings(
            **_feature_settings(self.feature_extractors, self.assembly, layer_idx, lookback),
            **{DOWNSAMPLE_KEYS[name]: value for name, value in sampling.items()},
            **chosen,
            **_trimming(trimming_config, split=use_train_test_split, n_stories=n_stories),
            downsample_method=LEGACY.get(method, method),
            fir_delays=fir_delays,  # type: ignore[arg-type]  # Settings makes a tuple of it
            use_train_test_split=use_train_test_split,
            alternative="two-sided",
            significance="parametric",
        )
        self.settings = _fitted_by(self.settings, fit_options({}))
        records.check_logger(logger_backend)
        records.check_results_dir(results_dir)
        for field, problem in pipeline.check(self.assembly, self.settings).items():
            if field not in (*FIT_OPTIONS, "outer_folding_type", "fdr_q"):  # which `train` can still change
                raise SettingsError(field, problem)
        self._split_indices = _stored_boundaries(method, self.assembly, self.settings)
        self.result: Result | None = None
        self.record: Path | None = None

    def train(self, **model_kwargs: Any) -> dict[str, Any]:
        """Run the fit, write its record, log it, and return LITcoder's metrics (`model.litcoder_metrics`).

        After cross-validation scores are means over the outer folds, as in LITcoder. All p-values assume white noise.

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
        options = fit_options(model_kwargs)
        settings = _fitted_by(self.settings, options)
        memory = next((e.memory for e in self.feature_extractors if e.modality == "language_model"), None)
        result = pipeline.run(
            self.assembly,
            settings,
            memory=memory,
            progress=self.progress,
            inner_folds=options["folds"],
            split_indices=self._split_indices,
        )
        alphas = np.sqrt(np.atleast_2d(result.best_alphas)).mean(axis=0)
        metrics = litcoder_metrics(result.scores, result.pvalues, alphas, alpha_fdr=options["alpha_fdr"])
        self.settings, self.result = settings, result
        noted = {
            "dataset_type": self.dataset_type,
            "metrics": {name: value for name, value in metrics.items() if not isinstance(value, list)},
            "stored_tr_boundaries": self._split_indices is not None,
        }
        self.record = records.save_and_log(
            result,
            self.results_dir,
            backend=self.logger_backend,
            project=self.wandb_project_name,
            run_name=self.run_name,
            metrics=metrics,
            assembly=self.assembly,
            extra={"litcoder": noted, "given_folds": options["folds"] is not None},
        )
        return metrics
