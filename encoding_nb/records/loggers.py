"""Runs in TensorBoard and in Weights & Biases: scalars, settings, pictures and histograms of a record.

A logger reads a record that is already on disk (`records.save_run`), so a logger that fails loses nothing and
`log_run` can be called again. Names of scalars and histograms are those that LITcoder's trainer logs
(litcoder_core, encoding/trainer.py and encoding/plotting/plotting_utils.py).
"""

from __future__ import annotations

import json
import os
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..assembly import Array
from ..pipeline import Result
from .load import flattened, folder_of, load_description, load_run
from .save import free_path, metrics_by_region, save_run

if TYPE_CHECKING:
    from ..assembly import Assembly


SCALARS = {
    "median_score": "median_correlation",
    "mean_score": "mean_correlation",
    "std_score": "std_correlation",
    "n_significant": "n_significant_voxels",
}
REGION_SCALARS = {"mean_score": "mean", "median_score": "median", "n_significant": "n_significant"}
# a network that does not answer ends the logging, not the session
INIT_SECONDS, FINISH_SECONDS = 60, 120


class LoggerError(RuntimeError):
    """A logger that cannot be used here; the message says what to install or to set."""


@dataclass(frozen=True, eq=False)
class RunLog:
    """What every logger is given.

    Attributes
    ----------
    name : the run's name
    scalars : {name: number}
    config : {name: value}, settings and provenance, nested names joined by a dot
    images : {name: PNG file}
    histograms : {name: (n,) finite values}
    """

    name: str
    scalars: Mapping[str, float]
    config: Mapping[str, Any]
    images: Mapping[str, Path]
    histograms: Mapping[str, Array]


def read_log(
    path: str | Path, *, run_name: str | None = None, metrics: Mapping[str, Any] | None = None
) -> RunLog:
    """What is logged of a record; `metrics` takes the place of the record's own.

    Raises
    ------
    records.RecordError
        As `records.load_run`.
    """
    path = folder_of(path, "log_run")
    result, described = load_run(path), load_description(path)
    metrics = result.metrics if metrics is None else metrics
    scalars = {new: float(metrics[old]) for old, new in SCALARS.items() if old in metrics}
    for name, value in metrics_by_region(result).items():
        region, _, metric = name.rpartition("/")
        if region and metric in REGION_SCALARS and np.isfinite(value):
            plain = re.sub(r"[^\w-]", "_", region.strip()).lower()
            scalars[f"{plain}_{REGION_SCALARS[metric]}"] = float(value)
    if result.settings.single_alpha:
        scalars["best_alpha"] = float(np.nanmedian(metrics.get("best_alphas", result.best_alphas)))
    finite = np.isfinite(result.scores)
    histograms = {"all": result.scores[finite]}
    if result.significant is not None:
        histograms["significant"] = result.scores[finite & result.significant]
    config = flattened(json.loads(result.settings.to_json()))
    config |= {"record": path.name, "test": result.test_name}
    known = ("Subject", "Simulated", "DataDigest", "SecondsByStage")
    return RunLog(
        name=run_name or described["RunName"] or path.name,
        scalars=scalars,
        config=config | {name: described[name] for name in known},
        images={file.stem: file for file in sorted(path.glob("*.png"))},
        histograms={f"correlation_histogram_data_{name}": r for name, r in histograms.items() if len(r)},
    )


# ---------------------------------------------------------------------- backends


def check_logger(backend: str | None) -> None:
    """Refuse a logger that could not log, before a fit; starts no run and asks no server.

    Raises
    ------
    ValueError
        An unknown backend; the known ones are listed.
    LoggerError
        Its package is not installed; Weights & Biases is to be used online and has no login.
    """
    if backend is None or backend == "none":
        return
    if backend not in BACKENDS:
        raise ValueError(f"Unknown logger {backend!r}; choose one of none, {', '.join(BACKENDS)}.")
    # a folder of that name in the working directory, such as wandb makes for its runs, has no origin
    if getattr(find_spec(backend), "origin", None) is None:
        raise LoggerError(
            f'The logger {backend!r} is not installed; run pip install "encoding_nb[{backend}]", or use '
            f'logger_backend="none": every run is recorded in its results folder anyway.'
        )
    if backend == "wandb" and not _wandb_has_login():
        raise LoggerError(
            "Weights & Biases has no login here: run `wandb login` in a terminal, or set the environment variable "
            "WANDB_MODE=offline before starting Python to keep its runs on this machine."
        )


def _wandb_has_login() -> bool:
    """Whether wandb needs no key, or finds one where it looks: settings, environment, netrc."""
    import wandb
    from requests.utils import get_netrc_auth

    settings = wandb.setup().settings
    given = [getattr(settings, name, None) for name in ("api_key", "identity_token_file")]
    given += [os.environ.get("WANDB_API_KEY"), get_netrc_auth(str(settings.base_url))]
    return settings.mode != "online" or any(given)


def log_run(
    path: str | Path,
    *,
    backend: str | None,
    logs_dir: str | Path | None = None,
    project: str = "encoding_nb",
    run_name: str | None = None,
    metrics: Mapping[str, Any] | None = None,
) -> Path | None:
    """Log a record, and return the folder that the logger wrote (None for "none").

    Parameters
    ----------
    path : folder of a record
    backend : "none", "tensorboard" or "wandb"
    logs_dir : folder
        Where logs are kept, the record's parent by default: TensorBoard in `runs/<name>`, Weights & Biases
        in `wandb/`.
    project : str
        For Weights & Biases. Its mode is the user's own (WANDB_MODE=offline, `wandb offline`).
    run_name : str, optional
        The record's name by default.
    metrics : mapping, optional
        In place of the record's metrics.

    Raises
    ------
    ValueError, LoggerError
        As `check_logger`; and whatever the logger itself raises.
    """
    check_logger(backend)
    if backend not in BACKENDS:
        return None
    log = read_log(path, run_name=run_name, metrics=metrics)
    logs = folder_of(path, "log_run").parent if logs_dir is None else Path(logs_dir).expanduser()
    return BACKENDS[backend](log, logs, project)


def save_and_log(
    result: Result,
    results_dir: str | Path = "results",
    *,
    backend: str | None = "none",
    project: str = "encoding_nb",
    run_name: str | None = None,
    metrics: Mapping[str, Any] | None = None,
    assembly: Assembly | None = None,
    **options: Any,
) -> Path:
    """Write the record, then log it; returns the record's folder.

    A logger that fails gives a warning that says how to log the record again. `options` are those of
    `records.save_run`, the others those of `log_run`.
    """
    path = save_run(result, results_dir, run_name=run_name, assembly=assembly, **options)
    try:
        log_run(path, backend=backend, project=project, run_name=run_name, metrics=metrics)
    except Exception as error:  # noqa: BLE001 - the run is on disk and must not be lost for its log
        warnings.warn(
            f"The run is saved in {path}, but {backend} failed ({type(error).__name__}: {error}); fix that and "
            f"call encoding_nb.records.log_run({str(path)!r}, backend={backend!r}).",
            stacklevel=2,
        )
    return path


def _log_to_tensorboard(log: RunLog, logs_dir: Path, project: str) -> Path:
    from PIL import Image
    from torch.utils.tensorboard import SummaryWriter

    name = re.sub(r"[^\w.-]+", "_", log.name).strip(".") or "run"
    folder = free_path(logs_dir / "runs", name)  # TensorBoard would mix two runs of one folder
    with SummaryWriter(str(folder)) as writer:
        writer.add_text("config", f"```\n{json.dumps(log.config, indent=1, default=str)}\n```", 0)
        for name, value in log.scalars.items():
            writer.add_scalar(name, value, 0)
        for name, values in log.histograms.items():
            writer.add_histogram(name, values, 0)
        for name, file in log.images.items():
            with Image.open(file) as picture:
                writer.add_image(name, np.asarray(picture.convert("RGB")), 0, dataformats="HWC")
    return folder


def _log_to_wandb(log: RunLog, logs_dir: Path, project: str) -> Path:
    import wandb

    logs_dir.mkdir(parents=True, exist_ok=True)
    wished: dict[str, Any] = {
        "console": "off",
        "silent": True,
        "disable_git": True,
        "disable_code": True,
        "x_disable_stats": True,
        "init_timeout": INIT_SECONDS,
        "finish_timeout": FINISH_SECONDS,
        "finish_timeout_raises": True,
    }
    known = {name: value for name, value in wished.items() if name in wandb.Settings.model_fields}
    with wandb.init(
        project=project,
        name=log.name,
        dir=str(logs_dir),
        config=dict(log.config),
        settings=wandb.Settings(**known),
        reinit="create_new",  # a run that the caller has open stays open
    ) as run:
        histograms = {name: wandb.Histogram(values.tolist()) for name, values in log.histograms.items()}
        images = {name: wandb.Image(str(file)) for name, file in log.images.items()}
        run.log({**log.scalars, **histograms, **images})
        return Path(run.dir).parent


# what check_logger also knows, besides "none"; each is the name of the package that it needs
BACKENDS = {"tensorboard": _log_to_tensorboard, "wandb": _log_to_wandb}
