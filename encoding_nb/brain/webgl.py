"""The surface in three dimensions: pycortex's WebGL viewer as a folder of files, and a local server to open it."""

from __future__ import annotations

import functools
import importlib.util
import os
import re
import shutil
import tempfile
import threading
import warnings
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from .._validation import check_flags
from ..assembly import Array, Surface
from ._painting import check_cmap, checked, value_limits
from .surfaces import VERTICES, pycortex_of, surface_mask


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

    The first export of a subject takes up to a minute, while pycortex packs its surfaces. The folder can be
    copied to any web server. If the page is opened as a file (`file://`), browsers refuse to load its data.

    Parameters
    ----------
    values : array, (n_voxels,)
        For a Result: `result.scores`, `result.surface`.
    surface : Surface
    folder : path
        Where to write; made if missing.
    title : str
        The title of the page.
    cmap : str
        One of pycortex's colour maps, among them inferno, viridis and RdBu_r.
    vmin, vmax
        The values at the ends of the colours; see `brain.value_limits`.
    significant : bool array, (n_voxels,), optional
        No value is shown where it is False.
    overwrite : bool
        Replace a folder that has something in it.

    Returns
    -------
    Path
        The folder; its `index.html` is the page.

    Raises
    ------
    ValueError
        `values` or `significant` of the wrong length, `significant` is not a mask of flags, a colour map that
        pycortex does not have.
    FileExistsError
        The folder is not empty and `overwrite` is False.
    """
    shown = checked(values, surface).astype(float)
    if significant is not None:
        shown[~check_flags(checked(significant, surface, "significance flags"))] = np.nan
    low, high = value_limits(np.asarray(values), cmap=cmap, vmin=vmin, vmax=vmax)
    folder = Path(folder).expanduser()
    if folder.is_dir() and any(folder.iterdir()) and not overwrite:
        raise FileExistsError(
            f"{folder} is not empty; choose another folder, or pass overwrite=True to replace what is in it."
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as draft:
        made = Path(draft) / "viewer"
        look = {"cmap": cmap, "vmin": low, "vmax": high}
        _make_viewer(made, shown, surface, title or surface.subject, look)
        if folder.is_dir():
            shutil.rmtree(folder)
        made.replace(folder)
    return folder


def _make_viewer(folder: Path, values: Array, surface: Surface, title: str, look: dict[str, Any]) -> None:
    with pycortex_of(surface) as cortex, warnings.catch_warnings():
        known = Path(cortex.options.config.get("webgl", "colormaps")).glob("*.png")
        check_cmap(look["cmap"], sorted(path.stem for path in known), "pycortex's viewer")
        warnings.simplefilter("ignore")  # pycortex gives one for each name without a shape
        if surface.mask == VERTICES:
            data = cortex.Vertex(values, surface.subject, **look)
        else:
            mask = surface_mask(surface)
            volume = np.full(mask.shape, np.nan)  # given a mask, pycortex would show 0 outside it
            volume[mask] = values
            data = cortex.Volume(volume, surface.subject, surface.transform, **look)
        drawn = cortex.db.get_paths(surface.subject)["surfs"]
        shapes = tuple(shape for shape in ("inflated",) if shape in drawn)
        # pycortex writes the title into the page, and the name of the map into a script, as they are
        name = re.sub(r"[<>&\"'\\\s]+", " ", title).strip() or "map"
        cortex.webgl.make_static(str(folder), {name: data}, title=escape(title), types=shapes)


@dataclass(frozen=True)
class Served:
    """A folder that is served to browsers on this machine.

    Attributes
    ----------
    port : int
    url : str
        The address on this machine.
    proxied : str or None
        The address through Jupyter, relative to its server, if jupyter-server-proxy is installed. Use it when the
        notebook runs on another machine, as on a hub.
    """

    port: int
    _server: Any

    @property
    def url(self) -> str:
        """The address for a browser on this machine."""
        return f"http://127.0.0.1:{self.port}/"

    @property
    def proxied(self) -> str | None:
        """The address through Jupyter, after the server's base path on a hub; None without jupyter-server-proxy."""
        if importlib.util.find_spec("jupyter_server_proxy") is None:
            return None
        return f"{os.environ.get('JUPYTERHUB_SERVICE_PREFIX', '/').rstrip('/')}/proxy/{self.port}/"

    def stop(self) -> None:
        """Stop the server."""
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
        The folder has no `index.html`.
    """
    import http.server  # brings ssl and email, 7 MB that no other map needs

    class Quiet(http.server.SimpleHTTPRequestHandler):
        """Serves files and writes no log into the notebook."""

        def log_message(self, format: str, *args: Any) -> None:
            """Write nothing."""

    folder = Path(folder).expanduser().resolve()
    if not (folder / "index.html").is_file():
        raise FileNotFoundError(f"{folder} contains no index.html; make it with export_webgl first.")
    handler = functools.partial(Quiet, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), handler)
    threading.Thread(target=server.serve_forever, name="encoding_nb-webgl", daemon=True).start()
    return Served(server.server_address[1], server)
