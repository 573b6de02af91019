"""The surface in three dimensions: pycortex's WebGL viewer as a folder of files, and a local server to open it."""

from __future__ import annotations

import difflib
import functools
import importlib.util
import os
import shutil
import tempfile
import threading
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..assembly import Surface
from ..scoring import checked_flags
from ._painting import checked, value_limits
from .surfaces import VERTICES, pycortex_of, surface_mask

Array = np.ndarray


def export_webgl(
    values: Array,
    surface: Surface,
    folder: str | Path,
    *,
    title: str = "",
    cmap: str = "inferno",
    vmin: float | None = None,
    vmax: float | None = None,
    significant: Array | None = None,
    overwrite: bool = False,
) -> Path:
    """Write pycortex's interactive viewer of a map into a folder; `serve_folder` opens it in a browser.

    The first export of a subject takes up to a minute, while pycortex packs its surfaces. The viewer
    stands by itself: the folder can be copied to any web server. Opened as a file (`file://`) browsers refuse
    to load its data.

    Parameters
    ----------
    values : array, (n_voxels,)
        For a Result: `result.scores`, `result.surface`.
    surface : Surface
    folder : where to write; made if missing
    title : str
        Of the page.
    cmap : str
        One of pycortex's colour maps, among them inferno, viridis and RdBu_r.
    vmin, vmax
        The values at the ends of the colours; see `brain.value_limits`.
    significant : bool array, (n_voxels,), optional
        Where it is False no value is shown.
    overwrite : bool
        Replace a folder that has something in it.

    Returns
    -------
    Path
        The folder; its `index.html` is the page.

    Raises
    ------
    ValueError
        `values` or `significant` of the wrong length, `significant` of others than flags, a colour map that pycortex
        lacks.
    FileExistsError
        The folder is not empty and `overwrite` is False.
    """
    shown = checked(values, surface).astype(float)
    if significant is not None:
        flags = checked_flags(checked(significant, surface, "significance flags"))
        shown = np.where(flags, shown, np.nan)
    low, high = value_limits(np.asarray(values), cmap=cmap, vmin=vmin, vmax=vmax)
    folder = Path(folder).expanduser()
    if folder.is_dir() and any(folder.iterdir()) and not overwrite:
        raise FileExistsError(
            f"{folder} is not empty; choose another folder, or pass overwrite=True to replace what is in it."
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as draft:
        made = Path(draft) / "viewer"
        _make_viewer(made, shown, surface, title or f"{surface.subject}", cmap, low, high)
        if folder.is_dir():
            shutil.rmtree(folder)
        made.replace(folder)
    return folder


def _make_viewer(
    folder: Path, values: Array, surface: Surface, title: str, cmap: str, low: float, high: float
) -> None:
    with pycortex_of(surface) as cortex, warnings.catch_warnings():
        _refuse_unknown_colours(cortex, cmap)
        warnings.simplefilter("ignore")  # pycortex's own, one per name without a shape
        look: dict[str, Any] = {"cmap": cmap, "vmin": low, "vmax": high}
        if surface.mask == VERTICES:
            data = cortex.Vertex(values, surface.subject, **look)
        else:
            mask = surface_mask(surface)
            volume = np.full(mask.shape, np.nan)  # given a mask, pycortex would show 0 outside it
            volume[mask] = values
            data = cortex.Volume(volume, surface.subject, surface.transform, **look)
        drawn = cortex.db.get_paths(surface.subject)["surfs"]
        shapes = tuple(shape for shape in ("inflated",) if shape in drawn)
        cortex.webgl.make_static(str(folder), {title: data}, title=title, types=shapes)


def _refuse_unknown_colours(cortex: Any, cmap: str) -> None:
    known = sorted(path.stem for path in Path(cortex.options.config.get("webgl", "colormaps")).glob("*.png"))
    if known and cmap not in known:
        near = difflib.get_close_matches(cmap, known, 3) or ["inferno", "viridis", "RdBu_r"]
        raise ValueError(f"pycortex's viewer has no colour map {cmap!r}; try {', '.join(near)}.")


@dataclass(frozen=True)
class Served:
    """A folder that is being served on this machine.

    Attributes
    ----------
    port : int
    url : str
        The address on this machine.
    proxied : str or None
        The address through Jupyter, relative to its server, where jupyter-server-proxy is installed: the one
        to use when the notebook runs elsewhere, as on a hub.
    """

    port: int
    _server: Any

    @property
    def url(self) -> str:
        """Where a browser on this machine finds the page."""
        return f"http://127.0.0.1:{self.port}/"

    @property
    def proxied(self) -> str | None:
        """Where a browser finds it through Jupyter, or None without jupyter-server-proxy."""
        return proxied_address(self.port)

    def stop(self) -> None:
        """End the server."""
        self._server.shutdown()
        self._server.server_close()

    def _repr_html_(self) -> str:
        address = self.proxied or self.url
        return f'<a href="{address}" target="_blank" rel="noopener">Open the viewer ({address})</a>'


def serve_folder(folder: str | Path, *, port: int = 0) -> Served:
    """Serve a folder to browsers on this machine until `stop` is called or Python ends.

    Parameters
    ----------
    folder : folder with an `index.html`
    port : int
        0 takes a free one.

    Raises
    ------
    FileNotFoundError
        No `index.html` there.
    """
    import http.server  # brings ssl and email, 7 MB that no other map needs

    class Quiet(http.server.SimpleHTTPRequestHandler):
        """Serves files and writes no log into the notebook."""

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    folder = Path(folder).expanduser().resolve()
    if not (folder / "index.html").is_file():
        raise FileNotFoundError(f"{folder} holds no index.html; make it with export_webgl first.")
    handler = functools.partial(Quiet, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), handler)
    threading.Thread(target=server.serve_forever, name="encoding_nb-webgl", daemon=True).start()
    return Served(server.server_address[1], server)


def proxied_address(port: int) -> str | None:
    """The path under which jupyter-server-proxy hands on a port of this machine; None where it is not installed.

    It begins with the server's base path on a hub (`JUPYTERHUB_SERVICE_PREFIX`), else with "/".
    """
    if importlib.util.find_spec("jupyter_server_proxy") is None:
        return None
    return f"{os.environ.get('JUPYTERHUB_SERVICE_PREFIX', '/').rstrip('/')}/proxy/{port}/"
