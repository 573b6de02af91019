"""The data sets' commands: `python -m encoding_nb fetch` and `python -m encoding_nb convert`.

They write to standard output and standard error themselves; the functions behind them do not.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Callable
from typing import Any

from . import fetch, load_assembly, save_assembly


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
    get.add_argument("--base-url", default=fetch.BUCKET, help="where files come from")
    get.add_argument("--key-url", default=fetch.KEYS, help="where their git-annex keys come from")
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
    if text is None or text in ("all", *fetch.STORY_LISTS):
        return text
    return [name.strip() for name in text.split(",") if name.strip()]


def fetch_command(arguments: argparse.Namespace) -> None:
    """Say how much there is to download, and download it unless this is a dry run."""
    plan = fetch.plan_lebel(
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
    fetch.fetch(plan, base_url=arguments.base_url)
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
