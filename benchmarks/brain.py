"""Times of the brain maps: `python benchmarks/brain.py [--browser]`.

The first map is timed in new processes with an empty home and cache folder, as on a fresh install; redraws
with new data in this process: the quickest, the median and the slowest of 30. With `--browser` the click-through
view is opened in JupyterLab in Chromium, and the time from a click to the drawn time course is measured there.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

FIRST_MAP = """
import time
start = time.perf_counter()
import numpy as np
from encoding_nb import brain
values = np.linspace(0, 1, brain.voxel_count(brain.SHIPPED))
{draw}
print(time.perf_counter() - start)
"""
FIRST = {
    "first live map, 512 px": "brain.png(brain.flat_image(values, brain.SHIPPED))",
    "first live map, 1024 px": "brain.png(brain.flat_image(values, brain.SHIPPED, height=1024))",
    "first figure, saved as PNG": "brain.flatmap(values, brain.SHIPPED).savefig('map.png')",
    "areas of the demo": "brain.roi_masks(brain.SHIPPED)",
}


def first(draw: str) -> float:
    """Seconds from the first import to the picture, on a fresh install."""
    with tempfile.TemporaryDirectory() as home:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("XDG_", "MPL", "ENCODING_NB"))}
        environment = {**kept, "HOME": home, "PYTHONPATH": str(Path(__file__).parent.parent)}
        command = [sys.executable, "-c", FIRST_MAP.format(draw=draw)]
        done = subprocess.run(command, env=environment, cwd=home, capture_output=True, text=True, check=True)
        return float(done.stdout)


def redraw(function, n: int = 30) -> list[float]:
    """Milliseconds of each of n calls with new values, after one to warm up."""
    from encoding_nb import brain

    rng = np.random.default_rng(0)
    maps = rng.normal(size=(n + 1, brain.voxel_count(brain.SHIPPED)))
    times = []
    for values in maps:
        start = time.perf_counter()
        function(values, brain.SHIPPED)
        times.append(1000 * (time.perf_counter() - start))
    return sorted(times[1:])


VIEW = """
import numpy as np
from encoding_nb import Result, Settings, brain_view
from encoding_nb.brain import SHIPPED, voxel_count
n, rng = voxel_count(SHIPPED), np.random.default_rng(0)
scores, series = rng.random(n), {"story": rng.normal(size=(300, n)).astype("float32")}
brain_view(Result(
    settings=Settings(), scores=scores, story_scores={"story": scores}, best_alphas=scores, pvalues=scores,
    significant=scores > 0.5, noise_ceiling=scores, predictions=series, measured=series,
    row_times={"story": 2.0 * np.arange(300)}, metrics={}, provenance={}, subject="S1", surface=SHIPPED))
"""
WATCH = """() => {
    const map = document.querySelector('.enb-brain-map'), course = document.querySelector('.enb-brain-course');
    window.times = [];
    let clicked = 0;
    map.addEventListener('pointerup', () => (clicked = performance.now()), true);
    new MutationObserver(() => {
        if (course.dataset.voxel !== '-1') window.times.push(performance.now() - clicked);
    }).observe(course, { attributes: true, attributeFilter: ['data-voxel'] });
}"""


def clicks(n: int = 60) -> list[float]:
    """Milliseconds from n clicks on the map to the drawn time course, in JupyterLab."""
    sys.path.insert(0, str(Path(__file__).parent.parent))
    from playwright.sync_api import sync_playwright

    from tests.browser import conftest as lab

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        folder, port = Path(home) / "work", lab.free_port()
        folder.mkdir()
        kernel = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
        cell = {
            "cell_type": "code",
            "source": VIEW,
            "metadata": {},
            "outputs": [],
            "execution_count": None,
            "id": "a",
        }
        notebook = {"cells": [cell], "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
        (folder / "view.ipynb").write_text(json.dumps(notebook))
        options = ["--no-browser", "--ip=127.0.0.1", f"--port={port}", "--ServerApp.port_retries=0", "--allow-root",
                   f"--IdentityProvider.token={lab.TOKEN}", f"--ServerApp.root_dir={folder}",
                   "--LabApp.expose_app_in_browser=True", "--LabApp.extension_manager=readonly"]  # fmt: skip
        environment = lab.jupyter_environment(Path(home), Path(home) / "cache")
        log = (Path(home) / "server.log").open("w")
        server = subprocess.Popen([sys.executable, "-m", "jupyterlab", *options], env=environment, stdout=log,
                                  stderr=subprocess.STDOUT, start_new_session=True)  # fmt: skip
        try:
            lab.wait_for(f"http://127.0.0.1:{port}/api?token={lab.TOKEN}", server, Path(log.name))
            with sync_playwright() as playwright:
                found = next(path for name in lab.CHROMIUM_NAMES if (path := shutil.which(name)))
                browser = playwright.chromium.launch(executable_path=found, args=lab.CHROMIUM_ARGS)
                page = browser.new_page(viewport={"width": 1280, "height": 720})
                page.goto(f"http://127.0.0.1:{port}/lab/tree/view.ipynb?token={lab.TOKEN}")
                lab.wait_until(lambda: page.evaluate(lab.KERNEL_READY), page, "the kernel is ready")
                lab.run_all(page)
                page.locator(".enb-brain-map[data-ready=true]").wait_for(timeout=60_000)
                return timed_clicks(page, n)
        finally:
            os.killpg(server.pid, signal.SIGTERM)
            server.wait(15)
            log.close()


def timed_clicks(page, n: int) -> list[float]:
    page.evaluate(WATCH)
    view = page.locator(".enb-brain-map")
    view.scroll_into_view_if_needed()
    box = view.bounding_box()
    for i in range(n):
        x, y = 0.15 + 0.7 * (i * 37 % n) / n, 0.35 + 0.25 * (i % 5) / 5
        view.click(position={"x": box["width"] * x, "y": box["height"] * y})
        page.wait_for_timeout(150)
    return sorted(page.evaluate("() => window.times"))


def main() -> None:
    from encoding_nb import brain

    def live_png(values, surface, **options):
        return brain.png(brain.flat_image(values, surface, **options))

    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    print(f"{os.cpu_count()} cores, load {load:.1f}")
    for name, draw in FIRST.items():
        print(f"{name:32s} {first(draw):8.2f} s")
    for height in (512, 1024):
        for name, function in {
            "pixels before colours": lambda v, s, h=height: brain.flat_mapper(s, height=h).project(v),
            "live PNG": lambda v, s, h=height: live_png(v, s, height=h),
            "live PNG, faded": lambda v, s, h=height: live_png(v, s, height=h, significant=v > 1),
        }.items():
            times = redraw(function)
            report(f"{name}, {height} px", times)
    if "--browser" in sys.argv:
        report("click to time course", clicks())


def report(label: str, times: list[float]) -> None:
    print(f"{label:32s} {np.median(times):8.1f} ms, {times[0]:.1f} to {times[-1]:.1f} ms")


if __name__ == "__main__":
    main()
