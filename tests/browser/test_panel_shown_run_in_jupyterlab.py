"""What the page says about the data and the run that it shows: lists of stories, the run on the map, the legend."""

import re

import pytest
from playwright.sync_api import expect

from .conftest import SCREENSHOTS, in_kernel, wait_until
from .panel_page import (
    choose,
    map_drawn,
    map_pixels,
    open_tab,
    press_fit,
    run_cell,
    small_panel,
    unfold,
    wait_for_fit,
)

pytestmark = pytest.mark.browser
# Two stories, one of which the open data do not have, in a file.
OTHER_DATA = """
from dataclasses import replace as _replace
from encoding_nb import load_assembly as _load, save_assembly as _save
_data = _load("demo", stories=("deepend", "lasttrainhome"))
_park = _replace(_data.stories["deepend"], name="park")
_stories = {"lasttrainhome": _data.stories["lasttrainhome"], "park": _park}
_save(_replace(_data, stories=_stories, test_stories=("park",)), "other.h5")
print("saved")
"""
SECOND_VIEW = """
if globals().get("again"):
    display(panel)
"""
LISTS = ("enb-stories", "enb-test-stories")


def open_other_data(page) -> None:
    assert in_kernel(page, OTHER_DATA) == "saved"
    unfold(page, "data")
    choose(page, "enb-source", "a file")
    box = page.locator(".enb-path input").first
    box.fill("other.h5")
    box.press("Enter")
    page.locator("button.enb-open").first.click()
    expect(page.locator(".enb-status").first).to_have_text(re.compile("Opened .*: 2 stories"), timeout=60_000)


def listed(page, css_class: str) -> list[tuple[list[str], list[str]]]:
    """For each view of a list: the texts of its rows, and those that are chosen."""
    return page.locator(f".{css_class} select").evaluate_all(
        "(lists) => lists.map((list) => [[...list.options].map((o) => o.text), "
        "[...list.selectedOptions].map((o) => o.text)])"
    )


def test_a_smaller_data_set_reaches_every_view_of_the_lists(open_notebook):
    """The same panel in two cells; a choice beyond the end of a new list would break the second view."""
    page = small_panel(open_notebook, more_cells=[SECOND_VIEW], height=1400)
    in_kernel(page, "panel.controls.sections['data'].unfold(); again = True")
    run_cell(page, 1)
    errors: list[str] = []
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    wait_until(lambda: len(listed(page, LISTS[0])) == 2, page, "both views are there")
    for names, chosen in listed(page, LISTS[0]):
        assert names == chosen == ["deepend", "gravy", "lasttrainhome"]
    in_kernel(page, OTHER_DATA + "panel.open_data('other.h5', {})")
    wait_until(lambda: in_kernel(page, "print(panel.status)").startswith("Opened"), page, "the data are open")
    wait_until(
        lambda: listed(page, LISTS[1])[0][1] == ["park"], page, "the first view has the new stories", 20
    )
    for names, chosen in listed(page, LISTS[0]):
        assert names == chosen == ["lasttrainhome", "park"]
    for names, chosen in listed(page, LISTS[1]):
        assert names == ["lasttrainhome", "park"] and chosen == ["park"]
    # a click in the second view chooses the story that it names
    page.locator(f".{LISTS[1]} select").nth(1).select_option(label="lasttrainhome")
    wait_until(
        lambda: in_kernel(page, "print(*panel.settings.test_stories or ())") == "lasttrainhome",
        page,
        "the kernel has the choice",
        20,
    )
    page.screenshot(path=SCREENSHOTS / "panel_two_views.png")
    broken = [text for text in errors if "state" in text or "undefined" in text]
    assert not broken, broken


def test_the_page_names_the_run_on_the_map_and_says_when_it_is_outdated(open_notebook):
    page = small_panel(open_notebook, height=1100)
    press_fit(page)
    wait_for_fit(page)
    first = map_drawn(page)
    shown, line, bar = (page.locator(f".{name}") for name in ("enb-shown", "enb-status", "enb-progress"))
    expect(shown).to_have_text("Shown: tiny-gpt2, layer 2, lookback 16.")
    expect(shown.locator(".enb-outdated")).to_have_count(0)
    expect(bar.locator(".progress-bar")).to_have_class(re.compile("success"))
    page.screenshot(path=SCREENSHOTS / "panel_shown.png")

    page.locator(".enb-layer .noUi-handle").press("ArrowLeft")
    outdated = (
        "Shown: tiny-gpt2, layer 2, lookback 16. The settings have changed (layer): press Fit to update."
    )
    expect(shown.locator(".enb-outdated")).to_contain_text(outdated)
    expect(line).to_contain_text("The settings have changed (layer)")
    expect(bar.locator(".progress-bar")).not_to_have_class(re.compile("success"))
    expect(page.locator(".enb-stages")).not_to_contain_text("\u2713")
    page.screenshot(path=SCREENSHOTS / "panel_outdated.png")
    page.locator(".enb-layer .noUi-handle").press("ArrowRight")
    expect(shown).to_have_text("Shown: tiny-gpt2, layer 2, lookback 16.")
    expect(line).to_contain_text("Done in")

    page.locator(".enb-layer .noUi-handle").press("ArrowLeft")
    press_fit(page)
    wait_for_fit(page)
    map_drawn(page, unlike=first)
    expect(shown).to_have_text("Shown: tiny-gpt2, layer 1, lookback 16.")
    open_other_data(page)
    expect(shown).to_contain_text("Other data are open now: press Fit to update.")
    expect(page.locator(".enb-stages")).not_to_contain_text("\u2713")
    page.screenshot(path=SCREENSHOTS / "panel_other_data_open.png")


def test_the_legend_of_the_map_says_what_is_drawn(open_notebook):
    page = small_panel(open_notebook, height=1100)
    press_fit(page)
    wait_for_fit(page)
    faded = map_drawn(page)
    open_tab(page, "Brain")
    legend = page.locator(".enb-brain-units")
    expect(legend).to_contain_text("faded: not significant")
    choose(page, "enb-map-voxels", "significant only")
    expect(legend).to_contain_text("hidden: not significant")
    expect(legend).not_to_contain_text("faded")
    assert not (map_pixels(page) == faded).all()
    choose(page, "enb-map-voxels", "all, the others faded")
    choose(page, "enb-map-values", "noise ceiling")
    expect(legend).to_contain_text("an estimate, single voxels can exceed it")
    expect(legend).to_contain_text(re.compile(r"faded: below 0\.\d\d, not above chance"))
    map_drawn(page, unlike=faded)
    page.screenshot(path=SCREENSHOTS / "panel_noise_ceiling.png")
    choose(page, "enb-map-values", "score")
    for css_class, number in (("vmin", "0.9"), ("vmax", "0.1")):
        box = page.locator(f".enb-brain-{css_class}")
        box.fill(number)
        box.press("Enter")
    expect(legend).to_contain_text("the upper end is taken from the data")
    ends = page.locator(".enb-brain-scale > span:not(.enb-brain-bar):not(.enb-brain-units)")
    expect(ends).to_have_text(["0.9", "1"])
