"""A run from a cell or a script: the pipeline's steps drained behind a bar, and a record of them where it is wanted.

It stands above both the pipeline, which knows nothing of records, and the records, which are made of results.
"""

from __future__ import annotations

import os
from typing import Any

from .assembly import Assembly, require_assembly
from .pipeline import Result, run_steps
from .records import check_results_dir, save_run
from .settings import Settings, require_settings


def run(
    assembly: Assembly,
    settings: Settings,
    *,
    progress: bool = True,
    results_dir: str | os.PathLike[str] | None = None,
    **options: Any,
) -> Result:
    """Fit and score; see `pipeline.run_steps`, which this drains.

    Parameters
    ----------
    assembly, settings
    progress : bool
        Show a bar on standard error.
    results_dir : folder, optional
        Leave a record in it (`records.save_run`); None leaves none.
    options : those of `run_steps`

    Returns
    -------
    Result

    Raises
    ------
    SettingsError, ValueError
        As `run_steps`; and, before any work, a results_dir that cannot be written (`records.RecordError`).
    TypeError
        As `run_steps`.
    """
    from tqdm import tqdm

    require_assembly(assembly, "run")
    require_settings(settings, "run")
    if results_dir is not None:
        results_dir = check_results_dir(results_dir)
    steps = run_steps(assembly, settings, **options)

    bar = tqdm(total=100, disable=not progress, bar_format="{desc} {percentage:3.0f}% |{bar}| {elapsed}")
    with bar:
        try:
            while True:
                step = next(steps)
                bar.set_description_str(f"{step.stage}: {step.detail}", refresh=False)
                bar.update(100 * step.overall - bar.n)
        except StopIteration as stop:
            bar.update(100 - bar.n)
            result = stop.value
    if results_dir is not None:
        save_run(result, results_dir, assembly=assembly)
    return result


__all__ = ["run"]
