"""What `estimate` states beside what runs take: seconds and peak memory, each run in a process of its own.

    python benchmarks/estimates.py

A run's memory is the growth of its largest resident set; "stated" counts the same. The made-up data have
random BOLD and word rate over many delays, so that the shape of the fit can be chosen.
"""

from __future__ import annotations

import json
import subprocess
import sys

CHILD = """
import json, re, sys, tempfile, time
from dataclasses import replace
from pathlib import Path
import numpy as np
from joblib import Memory
from encoding_nb import Settings, Story, Words, assembly, estimate, load_assembly, run
from encoding_nb.features import default_memory
from encoding_nb.design import Trimming

def made(n_stories, n_trs, n_voxels):
    rng = np.random.default_rng(0)
    words = Words([f"w{i}" for i in range(600)], np.arange(600.), np.arange(600.) + 0.3)
    bold = lambda: rng.standard_normal((n_trs, n_voxels), np.float32)
    stories = {f"s{i}": Story(f"s{i}", words, 2.0 * np.arange(n_trs), bold()) for i in range(n_stories)}
    return assembly.Assembly("made up", 2.0, stories, test_stories=("s0",))

def many_delays(n):
    return Settings(modality="wordrate", trimming=Trimming(), fir_delays=tuple(range(1, n + 1)))

memory = default_memory()
settings, data = Settings(), None
exec(sys.argv[1])
data = load_assembly("demo") if data is None else data
import encoding_nb.pipeline, scipy.sparse.linalg, threadpoolctl, sklearn.model_selection
if memory.location == default_memory().location:
    run(data, settings, memory=memory, progress=False)  # so that its activations are cached
    import torch, transformers
stated = estimate(data, settings, memory=memory)
Path("/proc/self/clear_refs").write_text("5")
def largest():
    return 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
before, started = largest(), time.perf_counter()
result = run(data, settings, memory=memory, progress=False)
print(json.dumps([stated.total_seconds, time.perf_counter() - started, stated.peak, largest() - before,
                  {k: round(v, 2) for k, v in stated.seconds.items()}, result.provenance["seconds"]]))
"""

RUNS = {
    "the demo, cached": "",
    "the demo, nothing cached": "memory = Memory(tempfile.mkdtemp(), verbose=0)",
    "the demo, nested": "settings = replace(settings, use_train_test_split=False)",
    "the demo, permutation test": 'settings = replace(settings, significance="permutation")',
    "made up, 1,000 x 1,000 x 20,000": "data, settings = made(6, 200, 20_000), many_delays(1000)",
    "made up, 4,000 x 1,000 x 20,000": "data, settings = made(11, 400, 20_000), many_delays(1000)",
}


def main() -> None:
    print(f"{'run':<34}{'stated s':>10}{'took s':>10}{'stated MB':>11}{'took MB':>10}")
    for name, setup in RUNS.items():
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", CHILD, setup], capture_output=True, text=True
        )
        if done.returncode:
            raise SystemExit(done.stderr)
        stated, took, peak, grown, stages, real = json.loads(done.stdout.splitlines()[-1])
        print(f"{name:<34}{stated:>10.1f}{took:>10.1f}{peak / 1e6:>11,.0f}{grown / 1e6:>10,.0f}")
        print(f"{'':<4}stated {stages}\n{'':<4}took   {real}")


if __name__ == "__main__":
    main()
