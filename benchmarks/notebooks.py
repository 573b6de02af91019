"""Run notebooks from top to bottom as a newcomer would, each with an empty cache, and hold their stated times to it.

    python benchmarks/notebooks.py                       # all of them; about ten minutes
    python benchmarks/notebooks.py 05 09 --out results/notebooks
    python benchmarks/notebooks.py --jobs 2              # two at a time, with a thread each: sooner done, slower each

Each notebook has a process and a cache of activations of its own. Printed are the seconds that it took, the CPU
seconds (which a busy machine changes less) and what its first cell says. A notebook that fails makes the exit
status 1. One that takes more than twice what it says and more than two minutes, both in seconds and in CPU seconds,
is marked, and makes the status 1 with --strict alone: two cores that are shared can take that long over anything.
What was executed is kept as HTML.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"
LONGEST = 120  # seconds that no notebook should take on two cores
TIMES = {
    r"a minute and a half": 90,  # before the plain minute
    r"half a minute": 30,
    r"(?:a|one) minute": 60,
    r"two minutes": 120,
    r"(\d+) seconds": None,  # as it says
}


@dataclass(frozen=True)
class Run:
    """One notebook's run: wall and CPU seconds, what its first cell says, what went wrong, if anything did."""

    name: str
    seconds: float
    cpu_seconds: float
    stated: float
    problem: str

    @property
    def slow(self) -> bool:
        """Whether it took far longer than it says; others' work lengthens the first time, threads the second."""
        return too_long(min(self.seconds, self.cpu_seconds), self.stated)


def stated_seconds(first_cell: str) -> float:
    """Seconds that a notebook's first cell says its first run takes: the first time after "takes".

    Raises
    ------
    ValueError
        None is said in words that are known here.
    """
    after = re.search(r"(?is)\btakes\b(.*)", first_cell)
    found = re.search("|".join(f"({pattern})" for pattern in TIMES), after[1]) if after else None
    if not found:
        raise ValueError(
            f"expected 'takes about' and one of {', '.join(TIMES)} in the first cell, got {first_cell[-200:]!r}."
        )
    return next(
        float(re.match(pattern, found[0])[1]) if seconds is None else seconds
        for pattern, seconds in TIMES.items()
        if re.fullmatch(pattern, found[0])
    )


def too_long(seconds: float, stated: float) -> bool:
    """Whether a run took so long that no busy machine explains it."""
    return seconds > 2 * stated and seconds > LONGEST


def run_notebook(path: Path, out: Path, *, threads: int | None = None) -> Run:
    """Execute one notebook with an empty cache; what it printed and drew goes to `out` as HTML."""
    stated = stated_seconds("".join(json.loads(path.read_text(encoding="utf-8"))["cells"][0]["source"]))
    command = [sys.executable, "-m", "jupyter", "nbconvert", "--to", "html", "--execute", "--output-dir"]
    with tempfile.TemporaryDirectory(prefix="encoding_nb-") as cache, tempfile.TemporaryFile() as said:
        env = {**os.environ, "ENCODING_NB_CACHE": cache}
        if threads is not None:
            env["OMP_NUM_THREADS"] = str(threads)
        began = time.monotonic()
        process = subprocess.Popen([*command, str(out), str(path)], env=env, stdout=said, stderr=said)
        # what this process took and those it waited for, whatever runs beside it
        _, status, used = os.wait4(process.pid, 0)
        seconds = time.monotonic() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        said.seek(0)
        text = said.read().decode(errors="replace")
    cpu = used.ru_utime + used.ru_stime
    return Run(path.stem, seconds, cpu, stated, text[-3000:] if process.returncode else "")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("numbers", nargs="*", help="of the notebooks, such as 05; all by default")
    parser.add_argument("--out", type=Path, default=Path("results/notebooks"), help="folder for the HTML")
    parser.add_argument(
        "--strict", action="store_true", help="a notebook far over its stated time fails, too"
    )
    parser.add_argument(
        "--jobs", type=int, default=1, help="notebooks at a time; more than one: a thread each"
    )
    arguments = parser.parse_args()
    chosen = [p for p in sorted(NOTEBOOKS.glob("*.ipynb")) if p.name[:2] in (arguments.numbers or p.name[:2])]
    if not chosen:
        raise SystemExit(f"No notebook {', '.join(arguments.numbers)} in {NOTEBOOKS}.")
    print(f"{'':32}{'takes':>8}{'CPU':>8}{'says':>8}")
    problems = []
    threads = 1 if arguments.jobs > 1 else None
    with ThreadPoolExecutor(arguments.jobs) as pool:
        for found in pool.map(lambda p: run_notebook(p, arguments.out.absolute(), threads=threads), chosen):
            print(
                f"{found.name:32}{found.seconds:6.0f} s{found.cpu_seconds:6.0f} s{found.stated:6.0f} s"
                f"{'   far longer than it says' if found.slow else ''}",
                flush=True,
            )
            if found.problem or (found.slow and arguments.strict):
                problems.append(found)
    for found in problems:
        print(f"\n{found.name}: {found.problem or 'do less in it, or say what it takes.'}")
    if problems:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
