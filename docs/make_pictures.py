"""The README's two pictures, from the demo: `python docs/make_pictures.py`.

docs/panel.png is JupyterLab in Chromium after a fit of the demo in the panel; docs/flatmap.png is that fit's map
as `flatmap` draws it.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
CELLS = [
    'from encoding_nb import control_panel, load_assembly\n\nassembly = load_assembly("demo")\n'
    "panel = control_panel(assembly)\npanel"
]
HIDE_SIDE = "() => window.jupyterapp.commands.execute('application:toggle-left-area')"


def draw_panel(out: Path, cache: Path) -> None:
    """A picture of the panel after a fit, with a voxel chosen whose time course is drawn."""
    from tests.browser import conftest as lab
    from tests.browser.panel_page import map_drawn, press_fit, wait_for_fit

    with tempfile.TemporaryDirectory() as home:
        folder = Path(home) / "work"
        folder.mkdir()
        (folder / "panel.ipynb").write_text(json.dumps(lab.notebook_of(CELLS)))
        with lab.running_lab(Path(home), folder, cache) as server, lab.running_browser() as browser:
            page = browser.new_page(viewport={"width": 1280, "height": 900})
            page.goto(f"{server.url}/lab/tree/panel.ipynb?token={lab.TOKEN}")
            lab.wait_until(lambda: page.evaluate(lab.KERNEL_READY), page, "the notebook's kernel is ready")
            lab.run_all(page)
            page.locator("button.enb-fit").wait_for(timeout=120_000)
            press_fit(page)
            wait_for_fit(page)
            page.evaluate(HIDE_SIDE)
            map_drawn(page)
            canvas = page.locator(".enb-flatmap canvas.enb-brain-map")
            box = canvas.bounding_box()
            canvas.click(position={"x": box["width"] * 0.23, "y": box["height"] * 0.62})
            page.wait_for_timeout(2000)
            page.mouse.move(5, 5)
            page.locator(".enb-panel").scroll_into_view_if_needed()
            page.screenshot(path=out)


def draw_flatmap(out: Path) -> None:
    """The map of the default fit."""
    from encoding_nb import Settings, flatmap, load_assembly, run

    result = run(load_assembly("demo"), Settings(), progress=False)
    flatmap(result.scores, result.surface, significant=result.significant).savefig(out, dpi=100)


def main() -> None:
    """Write both pictures beside this script."""
    with tempfile.TemporaryDirectory() as cache:
        draw_panel(ROOT / "docs" / "panel.png", Path(cache))
    draw_flatmap(ROOT / "docs" / "flatmap.png")


if __name__ == "__main__":
    main()
