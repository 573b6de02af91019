"""Copies the control panel's notebook into built packages: `python -m encoding_nb demo` executes it anywhere."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

NOTEBOOK = Path("notebooks") / "01_control_panel.ipynb"


class BuildWithNotebook(build_py):
    """`build_py`, and the notebook, which the repository keeps outside the package."""

    def run(self) -> None:
        """Copy the notebook next to the built modules; an editable installation reads the repository's."""
        super().run()
        if not self.editable_mode:
            target = Path(self.build_lib) / "encoding_nb" / NOTEBOOK
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(NOTEBOOK, target)


setup(cmdclass={"build_py": BuildWithNotebook})
