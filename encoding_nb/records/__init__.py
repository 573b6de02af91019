"""Runs on disk: written, listed, loaded again, compared, logged."""

from .load import (
    FOLD_MEANS,
    RECORD_NAME,
    RecordError,
    load_description,
    load_run,
    missing_part,
    read_settings,
)
from .loggers import check_logger, save_and_log
from .save import check_results_dir, save_run
from .tables import compare_runs, list_runs

__all__ = [
    "FOLD_MEANS",
    "RECORD_NAME",
    "RecordError",
    "check_logger",
    "check_results_dir",
    "compare_runs",
    "list_runs",
    "load_description",
    "load_run",
    "missing_part",
    "read_settings",
    "save_and_log",
    "save_run",
]
