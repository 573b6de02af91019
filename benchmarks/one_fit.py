"""How much code the smallest fit enters: files of the package, and entries of its functions.

    python benchmarks/one_fit.py [--list]

The fit: word rate, 4 stories of 80 TRs (65 rows of BOLD are left, as in the LeBel data) and 12 voxels in memory,
default settings otherwise. One fit goes before it,
so that imports and what is kept between fits do not count. `sys.setprofile` (and `threading.setprofile`, for
threads that the fit starts) sees each entry of a Python function. An entry counts where the function lies in the
package and has a name: comprehensions, lambdas, generator expressions and the top level of a module do not count,
and neither do the methods that `dataclass` writes, which lie in no file. A generator is entered once for each value
that is taken from it.
"""

from __future__ import annotations

import argparse
import os

os.environ |= {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}

import sys
import tempfile
import threading
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

import encoding_nb

PACKAGE = Path(encoding_nb.__file__).parent
SPLITS = ("split_stories",)  # functions that say which stories are fitted and which are predicted
N_STORIES, N_TRS, N_VOXELS, TR = 4, 80, 12, 2.0


class Entries:
    """Counts entries of the package's functions while a block runs, in its thread and in those it starts."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()
        self.threads: set[int] = set()

    def __enter__(self) -> Entries:
        threading.setprofile(self._see)
        sys.setprofile(self._see)
        return self

    def __exit__(self, *_: Any) -> None:
        sys.setprofile(None)
        threading.setprofile(None)

    def _see(self, frame: FrameType, event: str, _: Any) -> None:
        if event != "call":
            return
        code = frame.f_code
        if code.co_filename.startswith(f"{PACKAGE}{os.sep}") and not code.co_name.startswith("<"):
            file = str(Path(code.co_filename).relative_to(PACKAGE))
            self.counts[file, code.co_qualname] += 1
            self.threads.add(threading.get_ident())

    @property
    def files(self) -> list[str]:
        """Files of the package that were entered."""
        return sorted({file for file, _ in self.counts})

    def of(self, *functions: str) -> int:
        """Entries of the functions of these names."""
        return sum(count for (_, name), count in self.counts.items() if name in functions)


def small_assembly() -> Any:
    """Four short stories with words at random times and BOLD of noise."""
    rng = np.random.default_rng(0)
    stories = {}
    for number in range(N_STORIES):
        onsets = np.sort(rng.uniform(0, N_TRS * TR - 1, 3 * N_TRS))
        stories[f"story{number}"] = {
            "words": ["word"] * len(onsets),
            "onsets": onsets,
            "offsets": onsets + 0.2,
            "bold": rng.standard_normal((N_TRS - 15, N_VOXELS)),
            "tr_times": TR * np.arange(N_TRS),
        }
    return encoding_nb.Assembly.from_arrays(
        stories, subject="S1", tr=TR, test_stories=[f"story{N_STORIES - 1}"]
    )


def count_entries(cache: str) -> Entries:
    """Entries in the second of two equal fits."""
    os.environ["ENCODING_NB_CACHE"] = cache
    assembly, settings = small_assembly(), encoding_nb.Settings(modality="wordrate")
    run = encoding_nb.run
    run(assembly, settings, progress=False)
    with Entries() as entries:
        run(assembly, settings, progress=False)
    return entries


def main() -> None:
    """Count and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--list", action="store_true", help="entries of each function, by file")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as cache:
        entries = count_entries(cache)
    print(f"files entered       {len(entries.files):>6}")
    print(f"entries             {sum(entries.counts.values()):>6,}")
    print(f"functions           {len(entries.counts):>6}")
    print(f"threads             {len(entries.threads):>6}")
    print(f"folds are made      {entries.of('make_folds'):>6}")
    print(f"stories are split   {entries.of(*SPLITS):>6}")
    if arguments.list:
        for file in entries.files:
            print(f"\n{file}: {sum(n for (f, _), n in entries.counts.items() if f == file)}")
            for (place, name), count in entries.counts.most_common():
                if place == file:
                    print(f"{count:>8} {name}")


if __name__ == "__main__":
    main()
