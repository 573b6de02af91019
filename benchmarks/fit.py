"""Seconds and memory of the main job on the demo, each step in a process of its own.

    python benchmarks/fit.py

A fit counts with activations cached (the first call makes the cache and is shown too). Peak memory
is the process's resident set, imports included.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile

STEPS = {
    "import encoding_nb": "import encoding_nb",
    "load the demo": """
from encoding_nb import load_assembly
assembly = load_assembly("demo")
""",
    "first fit, activations computed": """
from encoding_nb import Settings, load_assembly, run
assembly = load_assembly("demo")
start()
result = run(assembly, Settings(), progress=False)
note = {"median r": round(float(result.metrics["median_score"]), 3), **result.provenance["seconds"]}
""",
    "the panel: first fit and pictures, none cached": """
from encoding_nb import Settings, load_assembly
from encoding_nb.panel import ControlPanel
assembly = load_assembly("demo")
start()
panel = ControlPanel(assembly, memory=None, results_dir="results", settings=Settings(lookback=32))
panel.fit()
panel.join()
note = panel.result.provenance["seconds"]
""",
    "the panel: first fit, cached, after 4 s": """
import time
from encoding_nb import Settings, load_assembly
from encoding_nb.panel import ControlPanel
assembly = load_assembly("demo")
panel = ControlPanel(assembly, memory=None, results_dir="results", settings=Settings())
time.sleep(4)
start()
panel.fit()
panel.join()
note = panel.result.provenance["seconds"]
""",
    "the panel: a later fit and its pictures": """
from encoding_nb import Settings, load_assembly
from encoding_nb.panel import ControlPanel
assembly = load_assembly("demo")
panel = ControlPanel(assembly, memory=None, results_dir="results", settings=Settings())
panel.fit()
panel.join()
panel.settings = Settings(layer_idx=2)
start()
panel.fit()
panel.join()
note = panel.result.provenance["seconds"]
""",
    "first fit in a process, activations cached": """
from encoding_nb import Settings, load_assembly, run
assembly = load_assembly("demo")
start()
result = run(assembly, Settings(), progress=False)
note = result.provenance["seconds"]
""",
    "a later fit, activations cached": """
from encoding_nb import Settings, load_assembly, run
assembly = load_assembly("demo")
run(assembly, Settings(), progress=False)
start()
result = run(assembly, Settings(layer_idx=2), progress=False)
note = result.provenance["seconds"]
""",
    "first flatmap in a process": """
import numpy as np
from encoding_nb.brain import SHIPPED, flat_image, png, voxel_count
start()
png(flat_image(np.linspace(0, 1, voxel_count(SHIPPED)), SHIPPED))
""",
}

FRAME = """
import json, resource, time
began = time.perf_counter()
note = {{}}
def start():
    global began
    began = time.perf_counter()
{body}
seconds = time.perf_counter() - began
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({{"seconds": seconds, "peak_mb": peak, "note": note}}))
"""


def measure(body: str, cache: str) -> dict:
    """Run one step in a fresh interpreter with the given activation cache."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FRAME.format(body=body)],
        capture_output=True,
        text=True,
        env=os.environ | {"ENCODING_NB_CACHE": cache},
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.strip().splitlines()[-1])


def main() -> None:
    with tempfile.TemporaryDirectory() as cache:
        print(f"{'step':<48}{'seconds':>9}{'peak MB':>10}")
        for name, body in STEPS.items():
            found = measure(body, cache)
            print(
                f"{name:<48}{found['seconds']:>9.2f}{found['peak_mb']:>10.0f}  {found['note'] or ''}",
                flush=True,
            )


if __name__ == "__main__":
    main()
