"""`control_panel`: the panel that a cell asks for, new or found again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..assembly import Assembly, require_assembly
from ..datasets import load_assembly
from ..features import store_folder
from ..records import check_results_dir
from ..settings import Settings, require_settings
from .known_runs import runs_named
from .panel import ControlPanel


def control_panel(
    assembly: Assembly | None = None,
    *,
    memory: Any = None,
    results_dir: str | Path | None = None,
    settings: Settings | None = None,
    name: str | None = None,
    compact: bool = False,
) -> ControlPanel:
    """A panel for one data set.

    Parameters
    ----------
    assembly : Assembly, optional
        None opens the built-in demo.
    memory : joblib.Memory, optional
        Where activations are kept; None takes the user's cache folder.
    results_dir : folder, optional
        Results are saved under it. None takes `results` in the working directory, which is looked at when something
        is saved: a class may open its panels in a folder that it cannot write to.
    settings : what the controls start with
    name : str, optional
        Tells panels apart: the same name on the same data gives the same panel again, with its run in progress.
        By default the name is the cell that calls, so that a cell that is run again finds its panel and two
        cells have two. Outside JupyterLab, where cells have no names, every call makes a new panel.
    compact : bool
        Narrower controls and a smaller map, for small screens and small servers such as Binder's.

    Returns
    -------
    ControlPanel

    Raises
    ------
    TypeError
        No Assembly, or no Settings, such as a mapping of them.
    ValueError
        A `memory` that is neither a Memory nor a folder; a results_dir that cannot be written (`records.RecordError`).
    """
    if assembly is not None:
        require_assembly(assembly, "control_panel")
    if settings is not None:
        require_settings(settings, "control_panel")
    store_folder(memory)  # which refuses what is neither a Memory nor a folder
    results_dir = Path("results") if results_dir is None else check_results_dir(results_dir)
    if assembly is None:
        assembly = load_assembly("demo")
    runs = runs_named(name, assembly, memory)
    asked = (str(results_dir), settings, compact)
    if runs.panel is not None and runs.asked == asked and runs.panel.comm is not None:
        return runs.panel
    start = settings or runs.settings or Settings()
    panel = ControlPanel(
        runs.assembly,
        memory=runs.memory,
        results_dir=results_dir,
        settings=start,
        compact=compact,
        runs=runs,
    )
    if runs.panel is not None:
        runs.panel.retire()
    runs.panel, runs.asked = panel, asked
    return panel
