"""The cell that makes the same run again, with the public functions and without the panel."""

from __future__ import annotations

import ipywidgets as widgets

from ..assembly import Assembly
from ..pipeline import IN_MEMORY, Result, to_code
from .page import CodeView
from .tabs import ResultTab


def code_of(result: Result, assembly: Assembly) -> str:
    """Source of a cell that repeats a run on its data.

    Data that were made in the notebook have no name to load them by: the cell then takes the variable that
    holds them, or one called `assembly`.
    """
    if assembly.source is not None:
        return to_code(result.settings, assembly.source, assembly.source_options)
    line = f"assembly = {variable_of(assembly) or 'assembly'}  # the data that were made in this notebook"
    return to_code(result.settings, None).replace(IN_MEMORY, line)


def variable_of(value: object) -> str | None:
    """The notebook's variable that holds this very object."""
    try:
        from IPython import get_ipython

        names = get_ipython().user_ns
    except (ImportError, AttributeError):
        return None
    return next(
        (name for name, held in list(names.items()) if held is value and not name.startswith("_")), None
    )


class CodeTab(ResultTab):
    """The code of the last run, to copy or to insert."""

    title = "Code"

    def __init__(self) -> None:
        self.view = CodeView()
        said = widgets.HTML(
            "This cell makes the last run again, without the panel. <b>Insert below</b> works in JupyterLab and "
            "Notebook 7; elsewhere use <b>Copy</b>."
        )
        super().__init__([said, self.view], "code")

    def show(self, result: Result, assembly: Assembly) -> None:
        """Show another run's code."""
        self.view.code = code_of(result, assembly)

    def draw(self) -> None:
        """Nothing is to be drawn."""
