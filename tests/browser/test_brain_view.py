"""The click-through map as a person uses it: JupyterLab in Chromium, mouse and keys."""

import json
import re

import pytest
from playwright.sync_api import expect

from .conftest import SCREENSHOTS, run_all, wait_until

pytestmark = pytest.mark.browser

RESULT = """
import numpy as np, traitlets
from encoding_nb import Settings, brain
from encoding_nb.panel import brain_view
from encoding_nb.pipeline import Result
from encoding_nb.brain import SHIPPED
rng = np.random.default_rng(0)
n, stories = brain.voxel_count(SHIPPED), ("one", "two")
scores = rng.uniform(0, 0.2, n) + 0.5 * brain.roi_masks(SHIPPED)["AC"]
series = {s: rng.normal(size=(200, n)).astype("float32") for s in stories}
result = Result(
    settings=Settings(), scores=scores, story_scores={s: scores for s in stories}, best_alphas=np.full(n, 100.0),
    pvalues=scores, significant=scores > 0.15, noise_ceiling=None, predictions=series, measured=series,
    row_times={s: 2.0 * np.arange(200) for s in stories}, metrics={}, provenance={}, subject="S1", surface=SHIPPED,
    rois={"AC": brain.roi_masks(SHIPPED)["AC"]}, simulated=True)
"""
SHOW = """
view, other = brain_view(result), brain_view(result)
link = traitlets.link((view, "selected"), (other, "selected"))
view
"""
CELLS = [RESULT, SHOW, "other", "print('kernel says', view.selected, view.threshold, view.vmax, view.story)"]


def write_notebook(lab, name, cells):
    kernel = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
    made = [{"cell_type": "code", "source": cell, "metadata": {}, "outputs": [], "execution_count": None, "id": f"c{i}"}
            for i, cell in enumerate(cells)]  # fmt: skip
    notebook = {"cells": made, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
    (lab.folder / name).write_text(json.dumps(notebook))


@pytest.fixture
def page(lab, open_notebook):
    write_notebook(lab, "brain_view.ipynb", CELLS)
    opened = open_notebook("brain_view.ipynb", height=720)
    outside = []
    opened.on("request", lambda request: outside.append(request.url) if not at_home(request.url) else None)
    run_all(opened)
    opened.locator(".enb-brain-map[data-ready=true]").nth(1).wait_for(timeout=60_000)
    opened.locator(".enb-brain").first.scroll_into_view_if_needed()
    yield opened
    assert outside == [], "the view asked for something from elsewhere"


def at_home(url: str) -> bool:
    return re.match(r"(https?|wss?)://127\.0\.0\.1|data:|blob:", url) is not None


def shown_voxel(page, which: int = 0) -> int:
    return int(page.locator(".enb-brain-course").nth(which).get_attribute("data-voxel"))


def voxel_said(page, which: int = 0) -> int:
    found = re.match(r"voxel (\d+)", page.locator(".enb-brain-status").nth(which).inner_text())
    return int(found.group(1)) if found else -1


def pixels(page, selector: str) -> str:
    return page.locator(selector).first.evaluate("canvas => canvas.toDataURL()")


def click_at(page, x: float, y: float) -> None:
    """Click the first map at a place given as shares of its width and height."""
    view = page.locator(".enb-brain-map").first
    box = view.bounding_box()
    view.click(position={"x": box["width"] * x, "y": box["height"] * y})


def kernel_says(page) -> str:
    """What the last cell prints when it is run now."""
    page.evaluate("""async () => {
        const notebook = window.jupyterapp.shell.currentWidget.content;
        notebook.activeCellIndex = 3;
        await window.jupyterapp.commands.execute('notebook:run-cell');
    }""")
    return page.locator(".jp-OutputArea-output pre", has_text="kernel says").inner_text()


def test_hover_click_and_arrow_keys(page):
    view = page.locator(".enb-brain-map").first
    box = view.bounding_box()
    tip = page.locator(".enb-brain-tip").first
    view.hover(position={"x": box["width"] * 0.23, "y": box["height"] * 0.62})
    expect(tip).to_have_text(re.compile(r"voxel \d+ in AC: r 0\.\d+, alpha 100, significant"))
    empty = pixels(page, ".enb-brain-course")

    click_at(page, 0.23, 0.62)
    wait_until(lambda: shown_voxel(page) >= 0, page, "the time course is drawn", 10)
    first = shown_voxel(page)
    assert voxel_said(page) == first and pixels(page, ".enb-brain-course") != empty
    assert view.evaluate("node => document.activeElement === node")
    wait_until(lambda: shown_voxel(page, 1) == first, page, "the linked view follows", 10)
    page.screenshot(path=SCREENSHOTS / "brain_view_clicked.png")

    cells = page.evaluate("() => window.jupyterapp.shell.currentWidget.content.activeCellIndex")
    seen = {first}
    for key in ("ArrowRight", "ArrowDown", "ArrowLeft", "ArrowUp"):
        before = shown_voxel(page)
        page.keyboard.press(key)
        wait_until(lambda before=before: shown_voxel(page) not in (-1, before), page, f"{key} moves on", 10)
        seen.add(shown_voxel(page))
    assert len(seen) >= 3
    after = page.evaluate("() => window.jupyterapp.shell.currentWidget.content.activeCellIndex")
    assert after == cells, "arrow keys move the selection, not JupyterLab's cells"
    assert f"kernel says {shown_voxel(page)} " in kernel_says(page)
    page.locator(".enb-brain-map").first.focus()
    page.keyboard.press("Escape")
    wait_until(lambda: shown_voxel(page) == -1, page, "Escape clears the selection", 10)


def test_zoom_and_pan(page):
    whole = pixels(page, ".enb-brain-map")
    view = page.locator(".enb-brain-map").first
    box = view.bounding_box()
    page.mouse.move(box["x"] + 200, box["y"] + 200)
    page.mouse.wheel(0, -240)
    assert pixels(page, ".enb-brain-map") == whole, "the wheel scrolls the page until the map is in use"
    page.locator(".enb-brain").first.scroll_into_view_if_needed()

    view.focus()
    page.keyboard.press("+")
    near = pixels(page, ".enb-brain-map")
    assert near != whole
    box = view.bounding_box()
    page.mouse.move(box["x"] + 300, box["y"] + 200)
    page.mouse.down()
    page.mouse.move(box["x"] + 220, box["y"] + 150, steps=4)
    page.mouse.up()
    panned = pixels(page, ".enb-brain-map")
    assert panned != near and shown_voxel(page) == -1, "a drag moves the map and selects nothing"
    page.mouse.wheel(0, -240)
    wait_until(lambda: pixels(page, ".enb-brain-map") != panned, page, "the wheel zooms", 10)
    page.keyboard.press("-")
    page.keyboard.press("0")
    assert pixels(page, ".enb-brain-map") == whole
    page.get_by_role("button", name="Zoom in").first.click()
    assert pixels(page, ".enb-brain-map") == near


def test_the_tip_follows_the_map_under_a_pointer_that_rests(page):
    """Keys and buttons move the map below the pointer: the tip names the voxel that is there then, or is hidden."""
    view, tip = page.locator(".enb-brain-map").first, page.locator(".enb-brain-tip").first
    click_at(page, 0.3, 0.4)
    wait_until(lambda: shown_voxel(page) >= 0, page, "the voxel is selected", 10)
    box = view.bounding_box()

    def rest() -> str:
        page.mouse.move(box["x"] + box["width"] * 0.23, box["y"] + box["height"] * 0.62 - 1)
        page.mouse.move(box["x"] + box["width"] * 0.23, box["y"] + box["height"] * 0.62)
        return tip.inner_text()

    def truth() -> str:
        """What the tip says when the pointer moves by nothing."""
        said = tip.inner_text()
        told = rest()
        return told if said else ""

    for key in ("+", "+", "-", "0"):
        before = rest()
        page.keyboard.press(key)
        said = tip.inner_text()
        assert said == truth(), f"after {key} the tip names another voxel than the one under the pointer"
        if key != "-":
            assert said != before, f"{key} moves the map under this pointer"
    page.screenshot(path=SCREENSHOTS / "brain_view_tip.png")
    for key in ("ArrowRight", "ArrowDown"):
        assert rest() and tip.is_visible()
        page.keyboard.press(key)
        expect(tip).to_be_hidden()
    assert rest()
    page.keyboard.press("+")
    page.mouse.move(5, 5)
    expect(tip).to_be_hidden()
    page.keyboard.press("0")
    expect(tip).to_be_hidden()


def test_threshold_colours_and_story_reach_the_kernel(page):
    view = page.locator(".enb-brain-map").first
    drawn = int(view.get_attribute("data-pictures"))
    slider = page.locator(".enb-brain-threshold").first
    slider.focus()
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    wait_until(lambda: int(view.get_attribute("data-pictures")) > drawn, page, "the map is drawn anew", 10)
    expect(page.locator(".enb-brain-threshold-value").first).to_have_text(re.compile(r"0\.0\d"))
    box = page.locator(".enb-brain-vmax").first
    box.click()
    page.keyboard.type("0.4")
    page.keyboard.press("Enter")
    expect(page.locator(".enb-brain-scale").first).to_contain_text("0.4")
    page.locator(".enb-brain-story").first.select_option("two")
    click_at(page, 0.23, 0.62)
    wait_until(lambda: shown_voxel(page) >= 0, page, "the time course is drawn", 10)
    expect(page.locator(".enb-brain-course").first).to_have_attribute(
        "aria-label", re.compile(r"in AC, two: r = 0")
    )
    said = kernel_says(page)
    assert re.search(r"kernel says \d+ 0\.0\d+ 0\.4 two", said), said


def test_map_and_time_course_fit_one_screen_in_both_themes(page):
    top = page.locator(".enb-brain-tools").first.bounding_box()["y"]
    course = page.locator(".enb-brain-course").first.bounding_box()
    assert course["y"] + course["height"] - top < 600
    click_at(page, 0.23, 0.62)
    wait_until(lambda: shown_voxel(page) >= 0, page, "the time course is drawn", 10)
    light = page.locator(".enb-brain").first.evaluate("node => getComputedStyle(node).color")
    course_in_light = pixels(page, ".enb-brain-course")
    page.evaluate(
        "() => window.jupyterapp.commands.execute('apputils:change-theme', {theme: 'JupyterLab Dark'})"
    )
    dark = "node => getComputedStyle(node).color"
    wait_until(
        lambda: page.locator(".enb-brain").first.evaluate(dark) != light, page, "the theme is dark", 20
    )
    wait_until(
        lambda: pixels(page, ".enb-brain-course") != course_in_light, page, "the course follows the theme", 10
    )
    page.screenshot(path=SCREENSHOTS / "brain_view_dark.png")
    page.evaluate(
        "() => window.jupyterapp.commands.execute('apputils:change-theme', {theme: 'JupyterLab Light'})"
    )
    wait_until(
        lambda: page.locator(".enb-brain").first.evaluate(dark) == light, page, "the theme is light", 20
    )
