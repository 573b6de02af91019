"""A run in JupyterLab: cancelled, found again after a reload, failed and mended, swept, compared, repeated."""

import re
import shutil
import time
from pathlib import Path

import pytest
from playwright.sync_api import expect

from .conftest import KERNEL_READY, SCREENSHOTS, in_kernel, wait_until
from .panel_page import (
    DONE,
    SLOW,
    TINY_MODEL,
    choose,
    drawn,
    goes_sideways,
    map_drawn,
    open_tab,
    picture,
    press_fit,
    run_again,
    run_cell,
    same_picture,
    show_panel,
    small_panel,
    status,
    type_into,
    unfold,
    wait_for_fit,
)

pytestmark = pytest.mark.browser
SESSION = KERNEL_READY.replace("kernel.status === 'idle' && ", "")
# steps that last: what is cancelled or found again must not be over before it is looked at
SLOWLY = """
import time
import encoding_nb.{module} as _module
_true = _module.{name}
def _slow(*a, progress, **k):
    def tell(done, total):
        progress(done, total)
        time.sleep(0.3)
    return _true(*a, progress=tell, **k)
_module.{name} = _slow
"""
QUICKLY = "_module.{name} = _true"
SHOWN_IN = {
    "Summary": ".enb-tab-summary table",
    "Brain": ".enb-flatmap canvas.enb-brain-map[data-ready=true]",
    "Stories": "img.enb-course",
    "Layers": "img.enb-best-layer",
    "Runs": "img.enb-scatter",
    "Code": ".enb-code",
}


def test_cancel_in_extraction_and_in_fit_then_fit_again(open_notebook):
    page = small_panel(open_notebook)
    cancel, line = page.locator("button.enb-cancel"), page.locator(".enb-status")
    for module, name, stage in (
        ("features.spaces", "layer_activations", "features"),
        ("ridge", "ridge_cv", "ridge"),
    ):
        in_kernel(page, SLOWLY.format(module=module, name=name))
        page.locator("button.enb-fit").click()
        expect(page.locator(".enb-stages .enb-now")).to_contain_text(stage, timeout=SLOW)
        assert in_kernel(page, "panel.fit(); print(panel.status)").startswith("Something is running")
        asked = time.monotonic()
        cancel.click()
        expect(line).to_have_text(re.compile("Cancelled"), timeout=20_000)
        print(f"cancelled in {stage} after {time.monotonic() - asked:.2f} s")
        expect(page.locator("button.enb-fit")).to_be_enabled()
        expect(cancel).to_be_disabled()
        in_kernel(page, QUICKLY.format(name=name))
    press_fit(page)
    wait_for_fit(page)
    map_drawn(page)


def test_a_reload_finds_the_run_again(open_notebook):
    page = small_panel(open_notebook)
    in_kernel(page, SLOWLY.format(module="ridge", name="ridge_cv"))
    page.locator("button.enb-fit").click()
    expect(page.locator(".enb-stages .enb-now")).to_contain_text("ridge", timeout=SLOW)
    page.evaluate("async () => { await window.jupyterapp.commands.execute('docmanager:save'); }")
    page.goto(page.enb_address)
    wait_until(lambda: page.evaluate(SESSION), page, "the notebook is open again")
    expect(page.locator("button.enb-cancel")).to_be_enabled(timeout=60_000)
    status(page, "ridge: ")
    expect(page.locator("button.enb-fit")).to_be_disabled()
    # a cell that is run again, as in a notebook that was never saved, finds it too
    run_again(page)
    expect(page.locator("button.enb-cancel")).to_be_enabled(timeout=60_000)
    assert in_kernel(page, "print(panel.running)") == "True"
    in_kernel(page, QUICKLY.format(name="ridge_cv"))
    wait_for_fit(page)
    map_drawn(page)


def test_an_error_is_said_and_mended(open_notebook, tmp_path):
    broken = tmp_path / "broken-model"
    shutil.copytree(TINY_MODEL, broken)
    weights = next(broken.glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:2000])
    page = small_panel(open_notebook)
    type_into(page, "enb-model", broken)
    expect(page.locator("button.enb-fit")).to_be_enabled()
    page.locator("button.enb-fit").click()
    expect(page.locator(".enb-error [role=alert]")).to_be_visible(timeout=SLOW)
    status(page, "stopped with an error")
    expect(page.locator(".enb-error")).to_contain_text(re.compile("broken-model.*demo"))
    details = page.locator(".enb-error details")
    assert details.get_attribute("open") is None, "the traceback is folded away"
    details.locator("summary").click()
    expect(details.locator("pre")).to_contain_text("Traceback")
    page.screenshot(path=SCREENSHOTS / "panel_error.png")
    expect(page.locator("button.enb-fit")).to_be_enabled()
    type_into(page, "enb-model", TINY_MODEL)
    press_fit(page)
    wait_for_fit(page)
    expect(page.locator(".enb-error [role=alert]")).to_have_count(0)


def light(page, on: bool) -> None:
    theme = "JupyterLab Light" if on else "JupyterLab Dark"
    page.evaluate(
        "async (theme) => { await window.jupyterapp.commands.execute('apputils:change-theme', {theme}); }",
        theme,
    )
    expect(page.locator("body")).to_have_attribute("data-jp-theme-light", str(on).lower(), timeout=30_000)


def test_sweep_compare_code_save_and_every_tab_in_both_themes(open_notebook, lab):
    page = small_panel(open_notebook, more_cells=["print('the last cell')"], width=1280, height=720)
    press_fit(page)
    wait_for_fit(page)

    open_tab(page, "Layers")
    page.locator("button.enb-sweep").click()
    expect(page.locator("img.enb-profile")).to_be_visible(timeout=SLOW)
    status(page, "Done: 5 layers")
    assert drawn(picture(page, "enb-best-layer"))

    open_tab(page, "Runs")
    options = page.locator(".enb-run-first option")
    expect(options).to_have_count(7, timeout=60_000)  # nothing, the fit, five layers
    page.locator(".enb-run-first select").select_option(index=1)
    page.locator(".enb-run-second select").select_option(index=4)
    page.locator("button.enb-compare").click()
    expect(page.locator(".enb-comparison")).to_contain_text("correlate with r", timeout=SLOW)
    assert drawn(picture(page, "enb-difference")) and drawn(picture(page, "enb-scatter"))

    page.locator("button.enb-save").click()
    status(page, r"Saved in results\d+/")
    said = page.locator(".enb-status").inner_text()
    folder = Path(lab.folder) / re.search(r"Saved in (\S+):", said)[1]
    assert {f.name for f in folder.iterdir()} >= {"flatmap.png", "flatmap.svg", "scores.csv", "metrics.json"}
    with page.expect_download(timeout=SLOW) as download:
        page.locator("button.enb-download").click()
    assert re.fullmatch(r"results\d+\.zip", download.value.suggested_filename)

    open_tab(page, "Code")
    page.locator("button.enb-copy").click()
    wait_until(
        lambda: "run(assembly, settings)" in page.evaluate("() => navigator.clipboard.readText()"),
        page,
        "it is copied",
    )
    page.locator("button.enb-insert").click()
    sources = "() => window.jupyterapp.shell.currentWidget.content.model.sharedModel.cells.map((c) => c.getSource())"
    wait_until(lambda: len(page.evaluate(sources)) == 3, page, "a cell is inserted")
    _, code, last = page.evaluate(sources)
    assert last == "print('the last cell')", "it stands below the panel's cell, not at the end"
    assert code == in_kernel(page, "print(panel.results.code.view.code)")
    in_kernel(page, "kept = panel.result.scores")
    run_cell(page, 1)
    wait_until(lambda: in_kernel(page, "print('result' in globals())") == "True", page, "it was run", 300)
    compared = (
        "import numpy; print(float(numpy.nanmax(abs(result.scores - kept))), "
        "bool((numpy.isnan(result.scores) == numpy.isnan(kept)).all()))"
    )
    largest, same = in_kernel(page, compared).split()
    assert float(largest) < 1e-6 and same == "True"

    for on in (True, False):
        light(page, on)
        for title in ("Summary", "Brain", "Stories", "Layers", "Runs", "Code"):
            open_tab(page, title)
            expect(page.locator(SHOWN_IN[title]).first).to_be_visible(timeout=60_000)
            assert not goes_sideways(page), f"{title} at 1280 x 720"
            page.set_viewport_size({"width": 1280, "height": 1900})  # the whole tab on one picture
            page.locator(".enb-panel").scroll_into_view_if_needed()
            page.wait_for_timeout(700)
            name = f"tab_{title.lower()}_{'light' if on else 'dark'}.png"
            page.locator(".enb-panel").screenshot(path=SCREENSHOTS / name)
            page.set_viewport_size({"width": 1280, "height": 720})
    light(page, True)


def test_what_the_result_tabs_can_be_asked_for(open_notebook):
    page = small_panel(open_notebook)
    press_fit(page)
    wait_for_fit(page)
    scores = map_drawn(page)
    choose(page, "enb-map-values", "noise ceiling")
    ceiling = map_drawn(page, unlike=scores)
    choose(page, "enb-map-values", "score")
    map_drawn(page, unlike=ceiling)
    faded = map_drawn(page)
    choose(page, "enb-map-voxels", "significant only")
    hidden = map_drawn(page, unlike=faded)
    outlines = page.locator(".enb-map-regions input")
    outlines.uncheck()
    map_drawn(page, unlike=hidden)
    outlines.check()
    choose(page, "enb-map-voxels", "all, the others faded")
    page.locator(".enb-flatmap .enb-brain-vmin").click()
    page.keyboard.type("0.3")
    page.keyboard.press("Enter")
    map_drawn(page, unlike=faded)

    # a voxel clicked on the map is the one of the Stories tab, and the other way round
    canvas = page.locator(".enb-flatmap canvas.enb-brain-map")
    box = canvas.bounding_box()
    canvas.click(position={"x": box["width"] * 0.28, "y": box["height"] * 0.6})
    wait_until(lambda: int(in_kernel(page, "print(panel.results.brain.view.selected)")) >= 0, page, "a click")
    voxel = in_kernel(page, "print(panel.results.brain.view.selected)")
    open_tab(page, "Stories")
    expect(page.locator(".enb-course-voxel input")).to_have_value(voxel, timeout=30_000)
    course = picture(page, "enb-course")
    type_into(page, "enb-course-voxel", 100)
    wait_until(lambda: not same_picture(course, picture(page, "enb-course")), page, "voxel 100 is drawn", 60)
    words = page.locator(".enb-words").inner_text()
    handle = page.locator(".enb-course-start .noUi-handle")
    handle.focus()
    for _ in range(4):
        handle.press("ArrowRight")
    expect(page.locator(".enb-words")).not_to_have_text(words, timeout=60_000)
    expect(page.locator(".enb-course-story select")).to_have_value("lasttrainhome")

    # settings of an earlier run
    type_into(page, "enb-lookback", 8)
    press_fit(page)
    wait_for_fit(page)
    open_tab(page, "Runs")
    first = page.locator(".enb-run-first select")
    expect(first.locator("option")).to_have_count(
        3, timeout=60_000
    )  # nothing, and two fits, the newest first
    first.select_option(index=2)
    page.locator("button.enb-take").click()
    expect(page.locator(".enb-lookback input")).to_have_value("16", timeout=30_000)
    page.locator("button.enb-save").click()
    status(page, r"Saved in results\d+/")
    page.locator("button.enb-refresh").click()
    expect(page.locator(".enb-runs tbody tr")).to_have_count(1, timeout=60_000)


def test_the_compact_panel(open_notebook):
    cell = (
        "from encoding_nb import Settings, control_panel, load_assembly\n"
        "assembly = load_assembly('demo', stories=('deepend', 'gravy', 'lasttrainhome'))\n"
        f"panel = control_panel(assembly, compact=True, settings=Settings(model_name={str(TINY_MODEL)!r}, layer_idx=2, "
        "lookback=16))\npanel"
    )
    page = open_notebook(cells=[cell], width=1024, height=700)
    show_panel(page)
    press_fit(page)
    expect(page.locator(".enb-status")).to_have_text(DONE, timeout=SLOW)
    map_drawn(page)
    page.screenshot(path=SCREENSHOTS / "panel_compact.png")
    unfold(page, "features")
    assert not goes_sideways(page)
