"""Every control by mouse and keys, and the whole way to a fit by keys alone."""

from itertools import pairwise

import pytest
from playwright.sync_api import expect

from .conftest import SCREENSHOTS, in_kernel, wait_until
from .panel_page import (
    TINY_MODEL,
    choose,
    goes_sideways,
    run_again,
    settings_of,
    small_panel,
    type_into,
    unfold,
    wait_for_fit,
)

pytestmark = pytest.mark.browser
LETTERS = "abcdefghijklmnopqrstuvwxyzABDFLMXYZ0159.,/-"
TEXTS = ("enb-path", "enb-subject", "enb-model", "enb-stride", "enb-embedding", "enb-delays", "enb-alphas")
PARTS = ("train-features", "train-targets", "test-features", "test-targets")
EDGES = tuple(f"enb-{part}-{edge}" for part in PARTS for edge in ("start", "end"))
SECTIONS = ("data", "trimming-details", "features", "time", "fit", "test")
PERMUTATIONS = {  # typed first: nested cross-validation does not permute
    "enb-permutations": ("n_permutations", 200),
    "enb-block": ("block_trs", 8),
}
NUMBERS = {
    "enb-lookback": ("lookback", 23),
    "enb-high-pass": ("high_pass", 128.5),
    "enb-time-sigma": ("time_sigma", 1.5),
    "enb-downsample-window": ("downsample_window", 5),
    "enb-cutoff": ("cutoff_mult", 0.75),
    "enb-inner-folds": ("n_inner_folds", 4),
    "enb-outer-folds": ("n_outer_folds", 3),
    "enb-outer-gap": ("outer_gap", 12.5),
    "enb-chunk-length": ("chunk_length", 15),
    "enb-prediction-floor": ("prediction_floor", 0.001),
    "enb-seed": ("seed", 7),
    "enb-shifts": ("n_shifts", 29),
    "enb-least-shift": ("least_shift", 30.5),
    "enb-fdr": ("fdr_q", 0.01),
}
CHOICES = {
    "enb-weights": ("untrained: random, from the seed", "weights", "untrained"),
    "enb-context": ("strides (approximate)", "context_type", "strided"),
    "enb-pooling": ("the mean over the window", "last_token", False),
    "enb-first-token": ("none", "first_token", "none"),
    "enb-word-rate-bins": ("words from its time on (as LITcoder)", "word_rate_bins", "litcoder"),
    "enb-processing": ("folded and centred, as in LITcoder", "processing", "litcoder"),
    "enb-downsample": ("sinc filter", "downsample_method", "sinc"),
    "enb-scheme": ("all in turn: nested cross-validation", "use_train_test_split", False),
    "enb-outer-folding": ("contiguous parts of the recording", "outer_folding_type", "kfold"),
    "enb-folding": ("chunks of TRs, in order", "folding_type", "chunked_contiguous"),
    "enb-criterion": ("explained variance (R2)", "use_corr", False),
    "enb-device": ("cpu", "device", "cpu"),
    "enb-significance": ("shift test (refits)", "significance", "shift"),
    "enb-alternative": ("two-sided", "alternative", "two-sided"),
}
TICKS = {"enb-single-alpha": "single_alpha", "enb-normalpha": "normalpha"}


def test_every_control_reaches_the_settings_and_no_letter_is_swallowed(open_notebook):
    page = small_panel(open_notebook, extras=True, height=1400)
    cells = "() => window.jupyterapp.shell.currentWidget.content.model.cells.length"
    before = page.evaluate(cells)
    for section in SECTIONS:
        unfold(page, section)
    choose(page, "enb-source", "a folder (ds003020, Alice)")
    page.locator(".enb-space-embeddings input").check()
    for space in ("wordrate", "position", "time", "extras"):
        page.locator(f".enb-space-{space} input").check()
    page.locator(".enb-delay-extras input").check()
    page.locator(".enb-extras select").select_option(["motion"])
    for css_class, (_, value) in PERMUTATIONS.items():
        type_into(page, css_class, value)
    for css_class, (label, _, _) in CHOICES.items():
        page.locator(f".{css_class} select").wait_for()
        choose(page, css_class, label)
    for css_class in TICKS:
        page.locator(f".{css_class} input").check()
    for late in ("stride", "outer-gap", "least-shift"):
        expect(page.locator(f".enb-{late} input")).to_be_visible()
    for grey in PERMUTATIONS:
        expect(page.locator(f".{grey} input")).to_be_disabled()

    for css_class in (*TEXTS, *EDGES):  # whatever it means: the letters must arrive
        box = page.locator(f".{css_class} input")
        kept = box.input_value()
        type_into(page, css_class, LETTERS)
        expect(page.locator("button.enb-fit")).to_be_disabled() if css_class in EDGES else None
        type_into(page, css_class, kept)
    assert page.evaluate(cells) == before, "a shortcut changed the notebook"

    for css_class, (_, value) in NUMBERS.items():
        type_into(page, css_class, value)
    type_into(page, "enb-stride", 6)
    type_into(page, "enb-delays", "0-2")
    type_into(page, "enb-alphas", "10, 1000")
    type_into(page, "enb-embedding", "vectors.txt")
    type_into(page, "enb-train-features-start", 11)
    handle = page.locator(".enb-layer .noUi-handle")
    handle.focus()
    handle.press("ArrowRight")
    page.locator(".enb-stories select").select_option(["deepend", "lasttrainhome"])
    page.locator(".enb-test-stories select").select_option(["deepend"])

    expected = {name: value for name, value in (*PERMUTATIONS.values(), *NUMBERS.values())}
    expected |= {name: value for _, name, value in CHOICES.values()} | dict.fromkeys(TICKS.values(), True)
    expected |= {
        "modality": "language_model",
        "joined_with": ["embeddings", "wordrate", "position", "time", "extras"],
        "extras": ["motion"],
        "delay_extras": True,
        "model_name": str(TINY_MODEL),
        "layer_idx": 3,
        "stride": 6,
        "fir_delays": [0, 1, 2],
        "alphas": [10.0, 1000.0],
        "embedding": "vectors.txt",
        "stories": ["deepend", "lasttrainhome"],
        "test_stories": ["deepend"],
    }

    def agrees():
        found = settings_of(page)
        return found["trimming"]["train_features_start"] == 11 and expected.items() <= found.items()

    wait_until(agrees, page, f"the settings are {expected}, not {settings_of(page)}", seconds=20)
    untouched = set(settings_of(page)) - set(expected) - {"trimming"}
    assert untouched == {"use_stored_contexts"}, "these data came without windows"
    expect(page.locator(".enb-embedding-problem")).to_contain_text("vectors.txt")
    expect(page.locator("button.enb-fit")).to_be_disabled()

    type_into(page, "enb-path", "nowhere")
    page.locator("button.enb-open").click()
    expect(page.locator(".enb-data-problem")).to_contain_text("There is no folder")
    choose(page, "enb-source", "the built-in demo")
    page.locator("button.enb-open").click()
    expect(page.locator(".enb-status")).to_contain_text("Opened", timeout=60_000)
    expect(page.locator(".enb-data")).to_contain_text("10 stories")


def test_every_control_says_in_words_what_it_is_for(open_notebook):
    """A label to read and a tooltip to hover over, for the eyes and for a screen reader, in the page itself."""
    page = small_panel(open_notebook, extras=True, height=1400)
    for section in SECTIONS:
        unfold(page, section)
    choose(page, "enb-source", "a folder (ds003020, Alice)")
    for space in ("embeddings", "wordrate", "time", "extras"):
        page.locator(f".enb-space-{space} input").check()
    choose(page, "enb-context", "strides (approximate)")
    choose(page, "enb-scheme", CHOICES["enb-scheme"][0])
    choose(page, "enb-significance", CHOICES["enb-significance"][0])
    for late in ("stride", "outer-gap", "least-shift", "delay-extras", "time-sigma"):
        page.locator(f".enb-{late} input").wait_for()
    page.wait_for_timeout(300)
    page.locator(".enb-left").screenshot(path=SCREENSHOTS / "panel_all_controls.png")
    found = page.evaluate(
        """() => [...document.querySelectorAll('.enb-panel input, .enb-panel select, .enb-panel button')]
            .filter((box) => box.offsetParent && !box.closest('.lm-TabBar, .noUi-target'))
            .map((box) => {
                const control = box.closest('.jupyter-widgets') || box;
                const label = control.querySelector('label') || control;
                const tip = box.title || control.title;
                const said = box.getAttribute('aria-description') || box.title;
                return [control.className, label.innerText.trim(), tip, said];
            })"""
    )
    assert len(found) > 50
    for name, label, tip, said in found:
        assert label, f"{name} has no label"
        assert len(tip.split()) > 1 or name.find("section") > 0, f"{name} has no tooltip: {tip!r}"
        assert said == tip, f"{name} says {said!r} to a screen reader"


FOCUSED = """() => {
    const found = document.activeElement.closest('[class*="enb-"]');
    return found ? [...found.classList].filter((name) => name.startsWith('enb-')).join(' ') : '';
}"""
WHERE = """() => {
    const at = document.activeElement, panel = at.closest('.enb-left');
    if (!panel) return null;
    const box = at.getBoundingClientRect(), whole = panel.getBoundingClientRect();
    return [at.closest('[class*="enb-"]').className, box.top - whole.top, box.left - whole.left];
}"""


def test_tab_follows_the_page_through_every_control(open_notebook):
    page = small_panel(open_notebook, height=1400)
    for section in SECTIONS:
        unfold(page, section)
    page.locator(".enb-space-wordrate input").check()
    page.locator(".enb-space-time input").check()
    choose(page, "enb-scheme", CHOICES["enb-scheme"][0])
    choose(page, "enb-significance", CHOICES["enb-significance"][0])
    late_ones = (".enb-alternative select", ".enb-device select", ".enb-word-rate-bins select")
    late_ones += (".enb-time-sigma input", ".enb-outer-gap input", ".enb-least-shift input")
    for late in (*late_ones, "img.enb-trimming-picture"):
        page.locator(late).wait_for(timeout=60_000)  # the kernel unfolds sections and draws the picture
    page.locator(".enb-data-section").focus()
    places = []
    for _ in range(110):
        place = page.evaluate(WHERE)
        if place is None:
            break
        places.append(place)
        page.keyboard.press("Tab")
    reached = {name for place in places for name in place[0].split() if name.startswith("enb-")}
    assert {
        *NUMBERS,
        *CHOICES,
        *TICKS,
        *EDGES,
        "enb-layer",
        "enb-model",
        "enb-split-check",
        "enb-fit",
    } <= reached
    assert not reached & PERMUTATIONS.keys(), "what has no effect is not reached"
    for (_, top, left), (name, next_top, next_left) in pairwise(places):
        beside = abs(next_top - top) < 12 and next_left > left
        assert beside or next_top > top, f"{name} is reached after what stands below it"


def test_by_keys_alone_from_the_top_to_a_fit_and_its_tabs(open_notebook):
    page = small_panel(open_notebook)
    page.locator(".jp-Notebook").first.press("Control+Home")  # the notebook's own first place, by a key
    page.keyboard.press("Escape")
    passed = []

    def tab_to(css_class):
        for _ in range(30):
            passed.append(page.evaluate(FOCUSED))
            if css_class in passed[-1].split():
                return
            page.keyboard.press("Tab")
        pytest.fail(f"Tab did not reach {css_class}; it passed {passed}")

    tab_to("enb-model")
    tab_to("enb-layer")
    page.keyboard.press("ArrowLeft")
    tab_to("enb-lookback")
    page.keyboard.press("ControlOrMeta+a")
    page.keyboard.type("12")
    page.keyboard.press("Tab")
    tab_to("enb-trimming")
    tab_to("enb-time-section")
    page.keyboard.press("Space")
    expect(page.locator(".enb-time-section")).to_have_attribute("aria-expanded", "true")
    page.locator(".enb-delays").wait_for(timeout=10_000)
    tab_to("enb-delays")
    page.keyboard.press("ControlOrMeta+a")
    page.keyboard.type("1, 2")
    page.keyboard.press("Tab")
    tab_to("enb-fit")
    page.keyboard.press("Enter")
    wait_for_fit(page)
    found = settings_of(page)
    assert (found["layer_idx"], found["lookback"], found["fir_delays"]) == (1, 12, [1, 2])
    order = [name for name in dict.fromkeys(passed) if name.startswith("enb-")]
    assert (
        order.index("enb-model")
        < order.index("enb-layer")
        < order.index("enb-lookback")
        < order.index("enb-fit")
    )

    tab_to("enb-tabs")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    expect(page.locator("img.enb-stories")).to_be_visible(timeout=60_000)


def test_the_split_is_checked_and_the_answer_turns_amber(open_notebook):
    page = small_panel(open_notebook, height=1400)
    for section in ("data", "fit", "test"):
        unfold(page, section)
    choose(page, "enb-scheme", CHOICES["enb-scheme"][0])
    expect(page.locator(".enb-significance-note")).to_contain_text("needs the shift test")
    expect(page.locator(".enb-outer-folding-note")).to_contain_text("3 folds: whole stories")
    page.locator("button.enb-split-check").click()
    line = page.locator(".enb-split-line")
    expect(line).to_contain_text("A model that knows only time scores r =", timeout=120_000)
    expect(line.locator(".enb-outdated")).to_have_count(0)
    page.screenshot(path=SCREENSHOTS / "split_checked.png")
    type_into(page, "enb-high-pass", 128)
    expect(line.locator(".enb-outdated")).to_contain_text(
        "The split has changed since (high-pass (s)): check it again."
    )
    choose(page, "enb-significance", CHOICES["enb-significance"][0])
    expect(page.locator(".enb-significance-note")).to_be_hidden()
    page.screenshot(path=SCREENSHOTS / "split_changed.png")
    assert goes_sideways(page) == []


def test_two_panels_in_a_notebook_do_not_disturb_each_other(open_notebook):
    page = small_panel(
        open_notebook, more_cells=["other = control_panel(assembly, settings=panel.settings)\nother"]
    )
    expect(page.locator("button.enb-fit")).to_have_count(2, timeout=60_000)
    expect(page.locator("button.enb-fit").nth(1)).to_be_enabled(timeout=30_000)
    page.locator("button.enb-fit").first.click()
    expect(page.locator(".enb-status").first).to_contain_text("Done in", timeout=240_000)
    # the text that is there, also where JupyterLab does not render a cell far down the page
    expect(page.locator(".enb-status").nth(1)).to_have_text("Ready.")
    assert in_kernel(page, "print(panel is other, other.result)") == "False None"
    # the same cell again gives the same panel, its result still shown
    in_kernel(page, "was = panel")
    run_again(page)
    assert in_kernel(page, "print(panel is was)") == "True"
    expect(page.locator(".enb-status").first).to_contain_text("Done in", timeout=60_000)
