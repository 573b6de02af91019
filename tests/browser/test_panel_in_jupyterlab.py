"""The main job as a person does it: JupyterLab in Chromium, the panel's notebook, Fit."""

import re

import pytest
from playwright.sync_api import expect

from .conftest import SCREENSHOTS, in_kernel
from .panel_page import (
    TINY_MODEL,
    choose,
    drawn,
    goes_sideways,
    map_drawn,
    open_tab,
    picture,
    press_fit,
    show_panel,
    small_panel,
    type_into,
    unfold,
    wait_for_fit,
)

pytestmark = pytest.mark.browser


def test_choose_fit_and_see(open_notebook):
    """The notebook of the first hour, from run-all to another map."""
    page = open_notebook("01_control_panel.ipynb")
    show_panel(page)
    wait_for_fit(page)
    in_kernel(page, "pass")  # comes after the last cell: the notebook scrolls no more
    first = map_drawn(page)
    page.screenshot(path=SCREENSHOTS / "panel_first_fit.png")

    type_into(page, "enb-model", TINY_MODEL)
    expect(page.locator(".enb-model-note")).to_contain_text("4 layers of 64 features")
    handle = page.locator(".enb-layer .noUi-handle")
    handle.focus()
    for _ in range(2):
        handle.press("ArrowLeft")
    expect(page.locator(".enb-layer .widget-readout")).to_have_text("2")
    type_into(page, "enb-lookback", 16)
    unfold(page, "trimming-details")
    type_into(page, "enb-test-features-start", 60)
    type_into(page, "enb-test-targets-start", 50)
    expect(page.locator(".enb-trimming select")).to_have_value(re.compile("custom"))
    assert drawn(picture(page, "enb-trimming-picture"))
    expect(page.locator(".enb-estimate")).to_contain_text("GB of memory", timeout=60_000)

    press_fit(page)
    page.screenshot(path=SCREENSHOTS / "panel_while_fitting.png")
    wait_for_fit(page)
    second = map_drawn(page, unlike=first)
    assert second.shape == first.shape
    open_tab(page, "Stories")
    assert drawn(picture(page, "enb-stories")) and drawn(picture(page, "enb-course"))


def test_what_cannot_be_is_said_beside_its_control(open_notebook):
    page = small_panel(open_notebook, width=1280, height=720)
    fit, reason = page.locator("button.enb-fit"), page.locator(".enb-reason")
    type_into(page, "enb-lookback", 5000)
    expect(page.locator(".enb-lookback-problem")).to_contain_text("5000")
    expect(fit).to_be_disabled()
    expect(reason).to_contain_text("lookback")
    page.screenshot(path=SCREENSHOTS / "panel_refusal.png")
    type_into(page, "enb-lookback", 16)
    expect(page.locator(".enb-lookback-problem")).to_be_hidden()
    expect(fit).to_be_enabled()
    expect(reason).to_be_empty()

    choose(page, "enb-trimming", "none")
    expect(page.locator(".enb-trimming-controls-problem")).to_contain_text("deepend")
    expect(fit).to_be_disabled()
    choose(page, "enb-trimming", "lebel")
    expect(fit).to_be_enabled()

    type_into(page, "enb-model", "no-such-model")
    expect(page.locator(".enb-model-problem")).to_contain_text("no-such-model", timeout=60_000)
    expect(fit).to_be_disabled()
    type_into(page, "enb-model", "gpt2-medium")  # known; whether it can be had depends on the machine
    expect(page.locator(".enb-model-problem")).not_to_contain_text("Looking up this model", timeout=60_000)
    expect(page.locator(".enb-left")).to_contain_text(re.compile("gpt2-medium|24 layers of 1024 features"))
    type_into(page, "enb-model", TINY_MODEL)
    expect(fit).to_be_enabled()

    unfold(page, "time")
    type_into(page, "enb-delays", "one")
    expect(page.locator(".enb-delays-problem")).to_contain_text("whole numbers of TRs")
    expect(reason).to_contain_text("delays (TR)")
    type_into(page, "enb-delays", "1-4")
    expect(page.locator(".enb-delays-note")).to_contain_text("2, 4, 6, 8 s")
    expect(fit).to_be_enabled()
    assert not goes_sideways(page)
