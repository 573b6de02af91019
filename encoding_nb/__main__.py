"""The command line: `python -m encoding_nb demo`, `lab`, `fetch`, `convert` and `cache`."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from . import datasets, features, plots
from ._files import new_file
from .assembly import Assembly
from .datasets import load_assembly, save_assembly
from .pipeline import Result, run
from .records import RecordError, check_results_dir, save_run
from .settings import Settings, SettingsError


def _stories(text: str | None) -> str | list[str] | None:
    if text is None or text in ("all", *datasets.STORY_LISTS):
        return text
    return [name.strip() for name in text.split(",") if name.strip()]


def fetch(arguments: argparse.Namespace) -> None:
    """Print how much there is to download, and download it unless this is a dry run."""
    plan: Any = datasets.fetch_lebel(
        arguments.folder,
        subject=arguments.subject,
        stories=_stories(arguments.stories),
        surfaces=not arguments.no_surfaces,
        base_url=arguments.base_url,
        key_url=arguments.key_url,
        dry_run=True,
        progress=False,
    )
    print(plan, flush=True)
    if arguments.dry_run:
        for file in plan.missing:
            print(f"{file.size / 1e6:10.1f} MB  {file.path}")
        return
    datasets.fetch(plan)
    print(f"done; open it with load_assembly({str(plan.folder)!r}, subject={arguments.subject!r})")


def convert(arguments: argparse.Namespace) -> None:
    """Load a data set, save it as HDF5, and print what was written."""
    options = {"subject": arguments.subject, "stories": _stories(arguments.stories)}
    given = {name: value for name, value in options.items() if value is not None}
    if arguments.repeats:
        given["repeats"] = True
    assembly = load_assembly(arguments.source, **given)
    path = save_assembly(assembly, arguments.target)
    print(f"{path}: {assembly!r}, {path.stat().st_size / 1e6:.1f} MB")


def panel_notebook() -> Path:
    """The control panel's notebook: the repository's in an editable installation, else the copy in the wheel."""
    package = Path(__file__).resolve().parent
    name = Path("notebooks") / "01_control_panel.ipynb"
    return next((path for path in (package.parent / name, package / name) if path.is_file()), package / name)


def score_table(result: Result, assembly: Assembly) -> str:
    """Median test correlation in what the simulation calls each area, and by what test voxels are significant."""
    significant = result.significant
    head = f"{'voxels that follow':<22}{'voxels':>8}{'median r':>10}"
    lines = [head if significant is None else f"{head}{'significant':>13}"]
    for area, mask in assembly.truth["areas"].items():
        share = "" if significant is None else f"{100 * significant[mask].mean():>12.1f}%"
        lines.append(f"{area:<22}{mask.sum():>8}{np.nanmedian(result.scores[mask]):>10.3f}{share}")
    return "\n".join([*lines, f"({result.test_name})"])


def save_figure(figure, path: Path) -> Path:
    """Write a figure as PNG."""
    with new_file(path) as draft:
        figure.savefig(draft, dpi=150)
    return path


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
    with new_file(out) as draft:
        draft.write_text(page, encoding="utf-8")
    return out


def demo(arguments: argparse.Namespace) -> None:
    """Fit the demo and print its scores; write a record, pictures and the executed notebook."""
    notebook = Path(arguments.notebook)
    if not notebook.is_file():
        raise SystemExit(f"There is no notebook at {notebook}; check --notebook.")
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
    print("wrote", execute_notebook(notebook, out_dir))


def lab(arguments: argparse.Namespace) -> None:
    """Open the panel's notebook in JupyterLab, in this process."""
    # JupyterLab refuses to run as root (a container's usual user) unless told that it may.
    as_root = ["--allow-root"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    command = [sys.executable, "-m", "jupyterlab", arguments.notebook, *as_root, *arguments.rest]
    os.execv(sys.executable, command)


def cache(arguments: argparse.Namespace) -> None:
    """Print what the cache of activations holds, by model; reduce it first with --prune."""
    memory = features.default_memory() if arguments.folder is None else arguments.folder
    if arguments.prune is not None:
        freed = features.prune_cache(memory, max_bytes=int(arguments.prune * 1e6))
        print(f"removed {freed / 1e6:.1f} MB of the least recently used entries")
    found = features.cache_info(memory)
    print(f"{features.store_folder(memory)}: {found.n_entries} entries, {found.n_bytes / 1e6:.1f} MB")
    for model, (n_entries, n_bytes) in sorted(found.by_model.items()):
        print(f"  {model}: {n_entries} entries, {n_bytes / 1e6:.1f} MB")


def _folder(typed: str) -> Path:
    folder = Path(typed).expanduser()
    if not folder.is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {typed!r}; check the path")
    return folder


def _megabytes(typed: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 <= (size := float(typed)) < float("inf"):
            return size
    raise argparse.ArgumentTypeError(f"expected megabytes of 0 or more, got {typed!r}")


def parser() -> argparse.ArgumentParser:
    """The command line's arguments."""
    top = argparse.ArgumentParser(prog="python -m encoding_nb", description=__doc__)
    commands = top.add_subparsers(required=True)
    notebook = str(panel_notebook())

    fit = commands.add_parser("demo", help="fit the bundled demo without a browser")
    fit.add_argument(
        "--results", default="results", help="folder for the record, pictures and the executed notebook"
    )
    fit.add_argument("--layer", type=int, default=Settings().layer_idx)
    fit.add_argument("--lookback", type=int, default=Settings().lookback, help="tokens")
    fit.add_argument("--notebook", default=notebook)
    fit.set_defaults(command=demo)

    view = commands.add_parser(
        "lab", help="open the panel's notebook in JupyterLab; all other arguments are passed on to JupyterLab"
    )
    view.add_argument("--notebook", default=notebook)
    view.set_defaults(command=lab)

    get = commands.add_parser(
        "fetch", help="download parts of the LeBel et al. data set (OpenNeuro ds003020)"
    )
    get.add_argument("folder", help="where the data set is, or where to put it")
    get.add_argument("--subject", required=True, help="UTS01 to UTS09")
    get.add_argument(
        "--stories",
        default="litcoder",
        help="names separated by commas, or litcoder (25, as in the tutorial), authors (27), all",
    )
    get.add_argument("--no-surfaces", action="store_true", help="leave out the subject's pycortex files")
    get.add_argument("--dry-run", action="store_true", help="only list what would be downloaded")
    get.add_argument("--base-url", help="where the files are (default: OpenNeuro's bucket)")
    get.add_argument("--key-url", help="where their git-annex keys are (default: OpenNeuro's GitHub)")
    get.set_defaults(command=fetch)

    change = commands.add_parser("convert", help="convert a data set to one HDF5 file")
    change.add_argument("source", help="a LITcoder .pkl, a ds003020 folder, 'demo', ...")
    change.add_argument("target", help="the file to write, .h5")
    change.add_argument("--subject")
    change.add_argument("--stories", help="names separated by commas, or litcoder, authors")
    change.add_argument("--repeats", action="store_true", help="also the test story's single presentations")
    change.set_defaults(command=convert)

    kept = commands.add_parser("cache", help="show or reduce the cache of activations")
    kept.add_argument(
        "--prune",
        type=_megabytes,
        metavar="MB",
        help="remove the least recently used entries down to this size",
    )
    kept.add_argument("--folder", type=_folder, help="another cache than the user's")
    kept.set_defaults(command=cache)
    return top


def main() -> None:
    """Run one command; invalid input is one sentence on standard error, and so is each warning."""
    arguments, rest = parser().parse_known_args()
    if rest and arguments.command is not lab:
        parser().error(f"unrecognized arguments: {' '.join(rest)}")
    arguments.rest = rest
    reads_data = arguments.command in (fetch, convert)
    with warnings.catch_warnings(record=reads_data) as caught:
        try:
            arguments.command(arguments)
        except SettingsError as error:
            raise SystemExit(f"{error.field}: {error}") from None
        except RecordError as error:
            raise SystemExit(str(error)) from None
        except KeyboardInterrupt:
            if not reads_data:
                raise
            raise SystemExit("Stopped; run the same command again to continue.") from None
        except (OSError, ValueError) as error:
            if not reads_data:
                raise
            raise SystemExit(str(error)) from None
        finally:
            for each in caught or []:
                print(f"Warning: {each.message}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
