"""What a panel leaves on disk: the record of a run, and all records of a folder in one archive."""

from __future__ import annotations

import os
import threading
from io import BytesIO
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile

from ..assembly import Assembly
from ..pipeline import Result
from ..records import list_runs, save_run
from .runs import Runs
from .warning_notes import listening

MOST_BYTES = 300_000_000  # that are sent to a browser at once
PACKED = {".png", ".npz", ".zip"}  # compressed already, or not worth the time


class Saving:
    """Writes the last result of a panel's runs, once, and one at a time: Save and the download may come together.

    Parameters
    ----------
    runs : Runs
    results_dir : folder
    """

    def __init__(self, runs: Runs, results_dir: Path) -> None:
        self._runs, self.results_dir = runs, results_dir
        self._writing = threading.Lock()

    def save(self) -> Path:
        """Write the record of the last fit, unless it is there already; returns the folder.

        Raises
        ------
        RuntimeError
            There is no result yet.
        OSError
            A folder that cannot be written.
        """
        with self._writing:
            return self._save()

    def _save(self) -> Path:
        result = self._runs.result
        if result is None:
            raise RuntimeError("There is no result yet: press Fit first.")
        saved = self._runs.saved
        if (
            saved is not None
            and saved[0] is result
            and saved[1].parent == self.results_dir
            and saved[1].is_dir()
        ):
            return saved[1]
        with listening(self._runs.note):
            folder = save_result(result, self._runs.fitted_on, self.results_dir)
        self._runs.saved = (result, folder)
        return folder

    def pack(self) -> tuple[str, bytes | None, str]:
        """Save the last result where there is one, then pack all; see `pack_results`. Errors come as its sentence."""
        try:
            with self._writing:
                if self._runs.result is not None:
                    self._save()
                return pack_results(self.results_dir)
        except Exception as error:  # noqa: BLE001 - whoever pressed the button is to read it
            return "", None, f"Nothing was packed: {error or type(error).__name__}"


def save_result(result: Result, assembly: Assembly, results_dir: Path) -> Path:
    """Write the record of a run, its pictures as PNG and SVG, and its table of voxels; returns the folder.

    Raises
    ------
    OSError
        A folder that cannot be written.
    """
    return save_run(result, results_dir, assembly=assembly, svg=True, table=True)


def saved_sentence(folder: Path) -> str:
    """Where the record is and what is in it."""
    names = sorted(file.name for file in folder.iterdir())
    return f"Saved in {os.path.relpath(folder)}: {', '.join(names)}."


def pack_results(results_dir: Path) -> tuple[str, bytes | None, str]:
    """(file name, zip, sentence) of all whole records of a folder; no zip where there is nothing, or too much."""
    table = list_runs(results_dir)
    folders = [
        Path(path) for path, status in zip(table["path"], table["status"], strict=True) if status == "whole"
    ]
    files = [file for folder in folders for file in sorted(folder.iterdir()) if file.is_file()]
    if not files:
        return "", None, f"There is no saved run in {results_dir} to download."
    count = "1 run" if len(folders) == 1 else f"{len(folders)} runs"
    size = sum(file.stat().st_size for file in files)
    if size > MOST_BYTES:
        return (
            "",
            None,
            (
                f"{count} of {size / 1e6:.0f} MB are too much for one download; take single folders of "
                f"{results_dir} from the file browser."
            ),
        )
    buffer = BytesIO()
    with ZipFile(buffer, "w") as archive:
        for file in files:
            how = ZIP_STORED if file.suffix in PACKED else ZIP_DEFLATED
            archive.write(file, f"{results_dir.name}/{file.parent.name}/{file.name}", compress_type=how)
    content = buffer.getvalue()
    return f"{results_dir.name}.zip", content, f"{count}, {len(content) / 1e6:.1f} MB."
