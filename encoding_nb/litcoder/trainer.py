"""LITcoder's AbstractTrainer: its arguments become `Settings`, its `train` is `running.run`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .. import loggers, pipeline, running
from ..assembly import Assembly
from ..pipeline import Result, Settings, SettingsError
from ..records import check_results_dir
from .arguments import (
    checked_extractors,
    delay_settings,
    downsample_settings,
    feature_settings,
    fitted_by,
    inputs_of,
    refuse_other,
    story_settings,
    trimming_of,
    with_windows,
)
from .assembly import LitcoderAssembly
from .downsampling import Downsampler
from .extractors import FeatureExtractor
from .model import FitOptions, NestedCVModel, litcoder_metrics

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
        loggers.check_logger(logger_backend)
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
        result = running.run(
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
        self.record = loggers.save_and_log(
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
