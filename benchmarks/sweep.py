"""What a sweep over all layers of the demo costs beside single runs, and what caches and disks give.

    python benchmarks/sweep.py            # the sweep; some minutes
    python benchmarks/sweep.py rates      # bytes and rates behind docs/scaling.md; Linux

Each measurement has a process of its own and an empty cache of activations. Wall seconds depend on what else the
machine does; CPU seconds (user and system, of the process and its children) less so. Set OMP_NUM_THREADS=1 on a
machine that is shared: products that wait for each other's threads cost CPU seconds too.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile

FRAME = """
import json, os, resource, time, warnings
import numpy as np
warnings.simplefilter("ignore")
from joblib import Memory
from encoding_nb import Settings, load_assembly, run
from encoding_nb.sweep import run_sweep, settings_grid
note = {{}}
def cpu():
    return sum(os.times()[:4])
assembly = load_assembly("demo")
grid = settings_grid(Settings(), layer_idx="all")
memory = Memory({cache!r}, verbose=0)
def one(layer):
    began, spent = time.perf_counter(), cpu()
    result = run(assembly, grid[layer], memory=memory, progress=False)
    return result, time.perf_counter() - began, cpu() - spent
{body}
note["peak_mb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
print(json.dumps(note))
"""

SINGLE = """
found = [one(layer) for layer in (3, 2, 4)]
note["first"] = found[0][1:]
note["later"] = [sum(f[i] for f in found[1:]) / 2 for i in (1, 2)]
note["stages"] = [f[0].provenance["seconds"] for f in found]
"""

SWEEP = """
began, spent = time.perf_counter(), cpu()
results = run_sweep(assembly, grid, memory=memory, progress=False)
note["sweep"] = (time.perf_counter() - began, cpu() - spent)
single = one(3)[0]
note["difference"] = float(np.nanmax(np.abs(single.scores - results[3].scores)))
note["medians"] = [round(float(r.metrics["median_significant_score"]), 3) for r in results]
"""

LENGTH = """
grid = settings_grid(Settings(), layer_idx="all", alphas=[(10.0**i,) for i in range({n})])[:{n}]
one(0)
note["before_mb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
run_sweep(assembly, grid, memory=memory, progress=False)
"""

RATES = """
from encoding_nb.features import cache, cache_info, model_info, store_folder
from encoding_nb.pipeline import response_rows
from encoding_nb.sweep._shared import write_array
rng = np.random.default_rng(0)
def seconds(work, repeats=3):
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return min(times)
one(0)
info = cache_info(memory)
words = sum(len(story.words) for story in assembly.stories.values())
width = model_info("demo").d_model
note["demo: cache bytes per value"] = round(info.n_bytes / (words * 7 * width), 2)
folder = store_folder(memory)
array = rng.standard_normal((2000, 768)).astype(np.float32) * 3
cache.write_layer(folder, "k", 0, array, {{}})
path = cache.entry_path(folder, "k", 0)
note["768 columns: cache bytes per value"] = round(path.stat().st_size / array.size, 2)
note["layer of 2,000 x 768: write s"] = round(seconds(
    lambda: cache.write_layer(folder, "k", 0, array, {{}})), 4)
note["layer of 2,000 x 768: read s"] = round(seconds(lambda: cache.read_layer(folder, "k", 0)), 4)
Y = rng.standard_normal((350, 95556))
story = next(iter(assembly.stories.values()))
from dataclasses import replace
from encoding_nb.design import Trimming
large = replace(story, bold=Y, repeats=None, tr_times=np.arange(350.0))
note["responses of 350 x 95,556, float64: z-score s"] = round(seconds(
    lambda: response_rows(large, Trimming(), test=False), 1), 3)
Z = response_rows(large, Trimming(), test=False)
import pathlib
file = pathlib.Path({cache!r}) / "block.npy"
note["the same as float32: write s"] = round(seconds(lambda: write_array(file, Z)), 3)
block = np.load(file, mmap_mode="r")
note["the same: read by columns, mapped, s"] = round(seconds(
    lambda: [np.array(block[:, i:i + 4096]) for i in range(0, 95556, 4096)]), 3)
with open(file, "rb") as opened:
    os.fsync(opened.fileno())
    size = file.stat().st_size
    for piece in (4 * 2**20, 16 * 2**10):
        # The kernel is told to forget the file, so that pieces come from the disk; in random order, and no more
        # than a second's worth of the small ones.
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        places = rng.permutation(size // piece)[:16000]
        began = time.perf_counter()
        for place in places:
            os.pread(opened.fileno(), piece, int(place) * piece)
        rate = len(places) * piece / (time.perf_counter() - began) / 1e9
        note[f"disk, past the page cache, pieces of {piece // 1024} KB: GB/s"] = round(rate, 2)
n = 2048
A = rng.standard_normal((n, n)).astype(np.float32)
note["float32 GFLOPS"] = round(2 * n**3 / seconds(lambda: A @ A) / 1e9)
D = A.astype(float)
note["float64 GFLOPS"] = round(2 * n**3 / seconds(lambda: D @ D) / 1e9)
X = rng.standard_normal((1340, 512))
note["eigenvectors of X'X, 512 columns, s"] = round(seconds(lambda: np.linalg.eigh(X.T @ X)), 4)
"""


def measure(body: str) -> dict:
    """Run one measurement in a fresh interpreter with an empty cache."""
    with tempfile.TemporaryDirectory() as cache:
        code = FRAME.format(cache=cache, body=body.replace("{cache!r}", repr(cache)).replace("{{}}", "{}"))
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.strip().splitlines()[-1])


def main() -> None:
    if sys.argv[1:] == ["rates"]:
        for name, value in measure(RATES).items():
            print(f"{name:<55}{value}")
        return
    single, sweep = measure(SINGLE), measure(SWEEP)
    print(f"{'':<58}{'wall s':>9}{'CPU s':>9}")
    rows = {
        "one run, activations computed": single["first"],
        "a later run of another layer": single["later"],
        "a sweep over all 7 layers, activations computed": sweep["sweep"],
        "its extra layers, each": [(s - f) / 6 for s, f in zip(sweep["sweep"], single["first"], strict=True)],
    }
    for name, (wall, cpu) in rows.items():
        print(f"{name:<58}{wall:>9.2f}{cpu:>9.2f}")
    for i, unit in enumerate(("wall", "CPU")):
        expected = single["first"][i] + 6 * single["later"][i]
        print(f"sweep / (one run + 6 later runs), {unit}: {sweep['sweep'][i] / expected:.2f}")
    print(f"largest difference from a single run's scores: {sweep['difference']:.1e}")
    print(f"median score of significant voxels by layer: {sweep['medians']}")
    print(f"stages of the single runs: {single['stages']}")
    for n in (3, 12):
        found = measure(LENGTH.replace("{n}", str(n)))
        print(f"peak memory, one run {found['before_mb']} MB, then a sweep of {n}: {found['peak_mb']} MB")


if __name__ == "__main__":
    main()
