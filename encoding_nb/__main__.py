"""The command line: `python -m encoding_nb demo`, `lab`, `fetch`, `convert` and `cache`."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from . import datasets, features, plots
from .assembly import Assembly
from .datasets import load_assembly, save_assembly
from .pipeline import Result, run
from .records import RecordError, check_results_dir, save_run
from .settings import Settings, SettingsError


class DataError(Exception):
    """One sentence for standard error."""


def add_to(commands: Any) -> None:
    """Add both commands to an `argparse` object's subparsers."""
    get = commands.add_parser(
        "fetch", help="download parts of the LeBel et al. data set (OpenNeuro ds003020)"
    )
    get.add_argument("folder", help="where the data set is, or is to be")
    get.add_argument("--subject", required=True, help="UTS01 to UTS09")
    get.add_argument(
        "--stories",
        default="litcoder",
        help="names with commas between them, or litcoder (25, as in the tutorial), authors (27), all",
    )
    get.add_argument("--no-surfaces", action="store_true", help="leave out the subject's pycortex files")
    get.add_argument("--dry-run", action="store_true", help="only say what would be downloaded")
    get.add_argument("--base-url", default=datasets.BUCKET, help="where files come from")
    get.add_argument("--key-url", default=datasets.KEYS, help="where their git-annex keys come from")
    get.set_defaults(command=_said(fetch_command))
    change = commands.add_parser("convert", help="write a data set to one file of this package's format")
    change.add_argument("source", help="a LITcoder .pkl, a ds003020 folder, 'demo', ...")
    change.add_argument("target", help="the file to write, .h5")
    change.add_argument("--subject")
    change.add_argument("--stories", help="names with commas between them, or litcoder, authors")
    change.add_argument("--repeats", action="store_true", help="the test story's single presentations too")
    change.set_defaults(command=_said(convert_command))


def _said(command: Callable[[argparse.Namespace], None]) -> Callable[[argparse.Namespace], None]:
    """A command whose refusals are a `DataError`, and whose warnings are one line each."""

    def run(arguments: argparse.Namespace) -> None:
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_, **__: _say(f"Warning: {message}", sys.stderr)
            try:
                command(arguments)
            except KeyboardInterrupt:
                raise DataError("Stopped; run the same command again to go on from here.") from None
            except (OSError, ValueError) as error:
                raise DataError(str(error)) from None

    return run


def _say(text: str, stream: Any = None) -> None:
    (stream or sys.stdout).write(f"{text}\n")
    (stream or sys.stdout).flush()


def _stories(text: str | None) -> str | list[str] | None:
    if text is None or text in ("all", *datasets.STORY_LISTS):
        return text
    return [name.strip() for name in text.split(",") if name.strip()]


def fetch_command(arguments: argparse.Namespace) -> None:
    """Say how much there is to download, and download it unless this is a dry run."""
    plan = datasets.plan_lebel(
        arguments.folder,
        subject=arguments.subject,
        stories=_stories(arguments.stories),
        surfaces=not arguments.no_surfaces,
        base_url=arguments.base_url,
        key_url=arguments.key_url,
    )
    _say(str(plan))
    if arguments.dry_run:
        for file in plan.missing:
            _say(f"{file.size / 1e6:10.1f} MB  {file.path}")
        return
    datasets.fetch(plan, base_url=arguments.base_url)
    _say(f"done; open it with load_assembly({str(plan.folder)!r}, subject={arguments.subject!r})")


def convert_command(arguments: argparse.Namespace) -> None:
    """Load, save, and say what was written."""
    options = {"subject": arguments.subject, "stories": _stories(arguments.stories)}
    given = {name: value for name, value in options.items() if value is not None}
    if arguments.repeats:
        given["repeats"] = True
    assembly = load_assembly(arguments.source, **given)
    path = save_assembly(assembly, arguments.target)
    _say(f"{path}: {assembly!r}, {path.stat().st_size / 1e6:.1f} MB")


NOTEBOOK = Path("notebooks") / "01_control_panel.ipynb"


def score_table(result: Result, assembly: Assembly) -> str:
    """Median test correlation in what the simulation calls each area, as text."""
    lines = [f"{'voxels that follow':<22}{'voxels':>8}{'median r':>10}{'significant':>13}"]
    for area, mask in assembly.truth["areas"].items():
        share = 100 * result.significant[mask].mean()
        lines.append(f"{area:<22}{mask.sum():>8}{np.nanmedian(result.scores[mask]):>10.3f}{share:>12.1f}%")
    return "\n".join(lines)


def save_figure(figure, path: Path) -> Path:
    """Write a figure under a temporary name and move it into place."""
    temporary = path.with_suffix(f".part{path.suffix}")
    figure.savefig(temporary, dpi=150)
    return temporary.replace(path)


def execute_notebook(notebook: Path, out_dir: Path) -> Path:
    """Run a notebook from top to bottom and write it as HTML into `out_dir`."""
    import nbformat
    from nbconvert import HTMLExporter
    from nbconvert.preprocessors import ExecutePreprocessor

    cells = nbformat.read(notebook, as_version=4)
    ExecutePreprocessor(timeout=600, kernel_name="python3").preprocess(
        cells, {"metadata": {"path": str(notebook.parent)}}
    )
    page, _ = HTMLExporter().from_notebook_node(cells)
    out = out_dir / f"{notebook.stem}.html"
    temporary = out.with_suffix(".part")
    temporary.write_text(page, encoding="utf-8")
    return temporary.replace(out)


def demo(arguments: argparse.Namespace) -> None:
    """Fit the demo, print its scores, leave a record, pictures and the executed notebook."""
    out_dir = check_results_dir(arguments.results)
    out_dir.mkdir(parents=True, exist_ok=True)
    assembly = load_assembly("demo")
    settings = Settings(layer_idx=arguments.layer, lookback=arguments.lookback)
    result = run(assembly, settings)
    print(result)
    print(f"Simulated BOLD; language model {settings.model_name!r}, layer {settings.layer_idx}, "
          f"lookback {settings.lookback} tokens; test story {', '.join(result.story_scores)}.")  # fmt: skip
    print(score_table(result, assembly))
    print("seconds: " + ", ".join(f"{stage} {s:.1f}" for stage, s in result.provenance["seconds"].items()))
    print("wrote", save_run(result, out_dir, assembly=assembly, run_name="demo"))
    print("wrote", save_figure(plots.plot_flatmap(result), out_dir / "flatmap.png"))
    print("wrote", save_figure(plots.plot_stories(result), out_dir / "stories.png"))
    notebook = Path(arguments.notebook)
    if not notebook.is_file():
        raise SystemExit(
            f"No notebook at {notebook}: run this from the project's folder, or name one with --notebook."
        )
    print("wrote", execute_notebook(notebook, out_dir))


def lab(arguments: argparse.Namespace) -> None:
    """Open the panel's notebook in JupyterLab, in this process."""
    # JupyterLab refuses to run as root (a container's usual user) unless told that it may.
    as_root = ["--allow-root"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    command = [sys.executable, "-m", "jupyterlab", arguments.notebook, *as_root, *arguments.rest]
    os.execv(sys.executable, command)


def cache(arguments: argparse.Namespace) -> None:
    """Say what the cache of activations holds, by model, and cut it down where that is asked for."""
    memory = features.default_memory() if arguments.folder is None else arguments.folder
    if arguments.prune is not None:
        freed = features.prune_cache(memory, max_bytes=int(arguments.prune * 1e6))
        print(f"removed {freed / 1e6:.1f} MB that were used longest ago")
    found = features.cache_info(memory)
    print(f"{features.store_folder(memory)}: {found.n_entries} entries, {found.n_bytes / 1e6:.1f} MB")
    for model, (n_entries, n_bytes) in sorted(found.by_model.items()):
        print(f"  {model}: {n_entries} entries, {n_bytes / 1e6:.1f} MB")


def _folder(typed: str) -> Path:
    folder = Path(os.path.expanduser(typed))
    if not folder.is_dir():
        raise argparse.ArgumentTypeError(f"there is no such folder as {typed!r}; check the path")
    return folder


def _megabytes(typed: str) -> float:
    try:
        size = float(typed)
    except ValueError:
        size = -1.0
    if not 0 <= size < float("inf"):
        raise argparse.ArgumentTypeError(f"expected megabytes of 0 or more, got {typed!r}")
    return size


def parser() -> argparse.ArgumentParser:
    """The command line's arguments."""
    top = argparse.ArgumentParser(prog="python -m encoding_nb", description=__doc__)
    commands = top.add_subparsers(required=True)
    fit = commands.add_parser("demo", help="fit the built-in demo without a browser")
    fit.add_argument(
        "--results", default="results", help="folder for the record, pictures and the executed notebook"
    )
    fit.add_argument("--layer", type=int, default=Settings().layer_idx)
    fit.add_argument("--lookback", type=int, default=Settings().lookback, help="tokens")
    fit.add_argument("--notebook", default=str(NOTEBOOK))
    fit.set_defaults(command=demo)
    view = commands.add_parser(
        "lab", help="open the panel's notebook in JupyterLab, which gets all other arguments"
    )
    view.add_argument("--notebook", default=str(NOTEBOOK))
    view.set_defaults(command=lab)
    add_to(commands)
    kept = commands.add_parser("cache", help="what the cache of activations holds, and cutting it down")
    kept.add_argument(
        "--prune", type=_megabytes, metavar="MB", help="remove the longest unused down to this size"
    )
    kept.add_argument("--folder", type=_folder, help="another cache than the user's own")
    kept.set_defaults(command=cache)
    return top


def main() -> None:
    """Run one command; what cannot be is one sentence on standard error."""
    arguments, rest = parser().parse_known_args()
    if rest and arguments.command is not lab:
        parser().error(f"unrecognized arguments: {' '.join(rest)}")
    arguments.rest = rest
    try:
        arguments.command(arguments)
    except SettingsError as error:
        raise SystemExit(f"{error.field}: {error}") from None
    except (DataError, RecordError) as error:
        raise SystemExit(str(error)) from None


if __name__ == "__main__":
    main()
