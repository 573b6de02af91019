"""What a sweep over layers of the demo costs next to single runs, and what caches and disks give.

    python benchmarks/sweep.py            # loop of run(), run_sweep with n_jobs=1 and 2; every fourth voxel
    python benchmarks/sweep.py --part 1   # the same on all voxels; a few minutes
    python benchmarks/sweep.py rates      # bytes and rates behind docs/scaling.md

Each way has a process of its own; all read the same activations, which are computed first. Wall seconds depend on what
else the machine does; CPU seconds (user and system, of the process and its children) less so. Memory is the largest
proportional set size of the process with its workers (shared pages are counted once), and the largest amount that a
worker has for itself; Linux.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from joblib import Memory

from encoding_nb import Assembly, Settings, load_assembly, run
from encoding_nb.sweep import run_sweep, settings_grid

WAYS = ("loop of run()", "run_sweep, n_jobs=1", "run_sweep, n_jobs=2")


def demo(part: int) -> Assembly:
    """The demo, with every `part`-th voxel."""
    assembly = load_assembly("demo")
    if part == 1:
        return assembly
    stories = {
        name: replace(
            story,
            bold=np.ascontiguousarray(story.bold[:, ::part]),
            repeats=None if story.repeats is None else np.ascontiguousarray(story.repeats[:][:, :, ::part]),
        )
        for name, story in assembly.stories.items()
    }
    rois = {name: mask[::part] for name, mask in assembly.rois.items()}
    return replace(assembly, stories=stories, rois=rois, surface=None, truth={})


class Peak:
    """Watches the memory of this process and its children, in a thread, until `stop`."""

    def __init__(self) -> None:
        self.together = self.worker = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        me = psutil.Process()
        while not self._over.wait(0.1):
            with suppress(psutil.Error):
                infos = [process.memory_full_info() for process in (me, *me.children(recursive=True))]
                self.together = max(self.together, sum(info.pss for info in infos))
                self.worker = max(self.worker, *(info.uss for info in infos[1:]), 0)

    def stop(self) -> dict[str, int]:
        """Megabytes."""
        self._over.set()
        self._thread.join()
        return {"together_mb": round(self.together / 1e6), "worker_mb": round(self.worker / 1e6)}


def sweep_once(way: str, cache: str, part: int) -> dict[str, Any]:
    """Seconds and memory of one way over all layers, and its scores."""
    assembly, memory = demo(part), Memory(cache, verbose=0)
    grid = settings_grid(Settings(), layer_idx="all")
    run(assembly, grid[0], memory=memory, progress=False)  # imports, activations, noise ceiling
    peak, wall, cpu = Peak(), time.perf_counter(), sum(os.times()[:4])
    if way == WAYS[0]:
        results = [run(assembly, settings, memory=memory, progress=False) for settings in grid]
    else:
        results = run_sweep(assembly, grid, memory=memory, n_jobs=int(way[-1]), progress=False)
    wall, memory_used = time.perf_counter() - wall, peak.stop()
    if way == WAYS[2]:  # children count once they have ended
        from joblib.externals.loky import get_reusable_executor

        get_reusable_executor(reuse=True).shutdown(wait=True)
    medians = [float(result.metrics["median_score"]) for result in results]
    return {"wall": wall, "cpu": sum(os.times()[:4]) - cpu, "medians": medians, **memory_used}


def compare(part: int) -> None:
    """Print a line for each way as it ends."""
    with tempfile.TemporaryDirectory() as cache:
        print("activations of the demo ...", flush=True)
        print(f"  {in_process('first', cache, part)['wall']:.1f} s for a first run with them", flush=True)
        print(
            f"{'':<22}{'wall s':>8}{'ratio':>7}{'CPU s':>8}{'ratio':>7}{'together MB':>13}{'a worker MB':>13}",
            flush=True,
        )
        first: dict[str, Any] = {}
        for way in WAYS:
            found = in_process(way, cache, part)
            first = first or found
            wall, cpu = found["wall"] / first["wall"], found["cpu"] / first["cpu"]
            print(
                f"{way:<22}{found['wall']:>8.1f}{wall:>7.2f}{found['cpu']:>8.1f}{cpu:>7.2f}"
                f"{found['together_mb']:>13}{found['worker_mb']:>13}",
                flush=True,
            )
            difference = np.abs(np.subtract(found["medians"], first["medians"])).max()
            if difference > 1e-6:
                print(f"  medians differ from those of the loop by {difference:.1e}", flush=True)


def in_process(way: str, cache: str, part: int) -> dict[str, Any]:
    """What `way` gives in a process of its own."""
    command = [sys.executable, __file__, "--way", way, "--cache", cache, "--part", str(part)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.strip().splitlines()[-1])


def seconds(work: Callable[[], Any], repeats: int = 3) -> float:
    """The shortest of a few times."""
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return min(times)


def rates() -> None:
    """Print bytes and rates."""
    from encoding_nb.design import Trimming
    from encoding_nb.features import cache, cache_info, model_info, store_folder
    from encoding_nb.pipeline import response_rows

    rng = np.random.default_rng(0)

    def show(name: str, value: float) -> None:
        print(f"{name:<55}{value}", flush=True)

    for dtype in (np.float32, np.float64):
        A = rng.standard_normal((2048, 2048)).astype(dtype)
        show(f"{A.dtype} GFLOPS", round(2 * 2048**3 / seconds(lambda A=A: A @ A) / 1e9))
    X = rng.standard_normal((1340, 512))
    show("eigenvectors of X'X, 512 columns, s", round(seconds(lambda: np.linalg.eigh(X.T @ X)), 4))
    assembly = load_assembly("demo")
    story = next(iter(assembly.stories.values()))
    bold = rng.standard_normal((350, 95556))
    large = replace(story, bold=bold, repeats=None, tr_times=np.arange(350.0))
    z_score = seconds(lambda: response_rows(large, Trimming(), test=False), 1)
    show("responses of 350 x 95,556, float64: z-score s", round(z_score, 3))
    with tempfile.TemporaryDirectory() as place:
        memory = Memory(place, verbose=0)
        run(assembly, Settings(), memory=memory, progress=False)
        values = sum(len(one.words) for one in assembly.stories.values()) * 7 * model_info("demo").d_model
        show("demo: cache bytes per value", round(cache_info(memory).n_bytes / values, 2))
        folder, array = store_folder(memory), 3 * rng.standard_normal((2000, 768)).astype(np.float32)
        write = seconds(lambda: cache.write_array(folder, "k", array, {}))
        size = cache.entry_path(folder, "k").stat().st_size
        show("768 columns: cache bytes per value", round(size / array.size, 2))
        show("layer of 2,000 x 768: write s", round(write, 4))
        show("layer of 2,000 x 768: read s", round(seconds(lambda: cache.read_array(folder, "k")), 4))
        disk_rates(Path(place) / "bold.npy", bold, show)


def disk_rates(file: Path, array: np.ndarray, show: Callable[[str, float], None]) -> None:
    """Rates of reading a file past the page cache; Linux."""
    np.save(file, array)
    with open(file, "rb") as opened:
        os.fsync(opened.fileno())
        for piece in (4 * 2**20, 16 * 2**10):
            # The kernel is told to forget the file, so that pieces come from the disk; in random order, and no more
            # than a second's worth of the small ones.
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
            places = np.random.default_rng(0).permutation(file.stat().st_size // piece)[:16000]
            began = time.perf_counter()
            for place in places:
                os.pread(opened.fileno(), piece, int(place) * piece)
            rate = len(places) * piece / (time.perf_counter() - began) / 1e9
            show(f"disk, past the page cache, pieces of {piece // 1024} KB: GB/s", round(rate, 2))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", nargs="?", choices=("sweep", "rates"), default="sweep")
    parser.add_argument("--part", type=int, default=4, help="take every PART-th voxel")
    parser.add_argument("--way", help=argparse.SUPPRESS)
    parser.add_argument("--cache", help=argparse.SUPPRESS)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    if options.what == "rates":
        rates()
    elif options.way == "first":
        began = time.perf_counter()
        run(demo(options.part), Settings(), memory=Memory(options.cache, verbose=0), progress=False)
        print(json.dumps({"wall": time.perf_counter() - began}))
    elif options.way:
        print(json.dumps(sweep_once(options.way, options.cache, options.part)))
    else:
        compare(options.part)


if __name__ == "__main__":
    main()
