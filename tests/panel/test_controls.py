"""The panel's controls: what they make of settings, and settings of them."""

from dataclasses import fields, replace

import ipywidgets as widgets
import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from encoding_nb.design import TRIMMINGS
from encoding_nb.features import ModelError, ModelInfo
from encoding_nb.panel.controls import Controls, ModelLookup, describe
from encoding_nb.panel.fields import (
    KINDS,
    parse_alphas,
    parse_delays,
    parse_number,
    parse_whole,
    write_alphas,
    write_number,
)
from encoding_nb.pipeline import check
from encoding_nb.ridge import huth_alphas
from encoding_nb.settings import Settings, SettingsError

from ..pipeline.test_runs import TRIM, assembly  # noqa: F401 - a fixture
from .test_panel import TINY_MODEL, texts


@pytest.fixture
def controls(assembly):  # noqa: F811
    made = Controls(assembly, Settings(), lambda: None, lambda *_: None, ModelLookup(lambda: None))
    made.adapt()
    return made


def box(controls, setting):
    """The widget of a setting."""
    return controls.fields[setting].control


UNUSUAL = Settings(
    modality="wordrate",
    joined_with=("language_model", "embeddings"),
    model_name=str(TINY_MODEL),
    weights="untrained",
    layer_idx=3,
    last_token=False,
    first_token="none",
    lookback=17,
    context_type="strided",
    stride=5,
    processing="litcoder",
    use_stored_contexts=True,
    embedding="vectors.txt",
    word_rate_bins="litcoder",
    time_sigma=1.5,
    extras=("motion", "a, b"),
    delay_extras=True,
    downsample_method="sinc",
    downsample_window=4,
    cutoff_mult=0.5,
    fir_delays=(0, 2, 5),
    trimming=TRIM,
    high_pass=128.5,
    use_train_test_split=False,
    stories=("storya", "storyb"),
    test_stories=("storyb",),
    folding_type="group",
    n_inner_folds=3,
    outer_folding_type="kfold_trimmed",
    n_outer_folds=4,
    outer_gap=0.0,
    chunk_length=7,
    alphas=(1.0, 30.0),
    single_alpha=True,
    use_corr=False,
    normalpha=True,
    prediction_floor=1e-8,
    fdr_q=0.01,
    alternative="two-sided",
    significance="shift",
    n_permutations=50,
    block_trs=4,
    n_shifts=29,
    least_shift=12.5,
    seed=3,
    device="cpu",
)


def test_every_setting_has_a_control(controls):
    default = Settings()
    missing = {f.name for f in fields(Settings) if getattr(UNUSUAL, f.name) == getattr(default, f.name)}
    assert not missing, "the unusual settings must differ in everything"
    controls.show(UNUSUAL)
    assert controls.settings == UNUSUAL
    assert set(controls.fields) == {f.name for f in fields(Settings)}


def test_controls_make_the_settings_they_were_shown(controls):
    assert controls.settings == Settings()
    for name, box in controls.trimming.numbers.items():
        value = getattr(TRIM, name)
        box.value = "" if value is None else str(value)
    assert controls.settings.trimming == TRIM and controls.trimming.preset.value == "custom"
    controls.trimming.preset.value = "lebel"
    assert controls.settings.trimming == TRIMMINGS["lebel"]


def test_the_first_hour_needs_only_what_is_in_sight(controls):
    shown = [c for c in controls.children if c.layout.display != "none"]
    main = [controls.fields[name] for name in ("model_name", "layer_idx", "lookback", "trimming")]
    assert [entry for entry in shown if entry in main] == main
    assert not any(section.unfolded for section in controls.sections.values())


def test_a_problem_unfolds_its_section(controls):
    box(controls, "fir_delays").value = "one"
    _, problems = controls.read()
    assert set(problems) == {"fir_delays"}
    assert controls.show_problems(problems | {"nothing_here": "x"}) == ["x"]
    assert controls.sections["time"].unfolded and not controls.sections["fit"].unfolded
    assert "whole numbers of TRs" in texts(controls.fields["fir_delays"])
    with pytest.raises(SettingsError, match="got 'one'"):
        controls.settings  # noqa: B018 - reading it is the test


def test_delays_are_told_in_seconds(controls):
    box(controls, "fir_delays").value = "1-3"
    controls.adapt()
    assert "that is 2, 4, 6 s at a TR of 2 s" in texts(controls.fields["fir_delays"])


def test_what_has_no_effect_is_grey(controls):
    def disabled(*names):
        return [box(controls, name).disabled for name in names]

    box(controls, "significance").value = "parametric"
    controls.adapt()
    assert disabled("layer_idx", "n_outer_folds", "block_trs") == [False, True, True]
    controls.spaces.boxes["language_model"].value = False
    controls.spaces.boxes["wordrate"].value = True
    box(controls, "use_train_test_split").value = False
    box(controls, "significance").value = "permutation"
    box(controls, "downsample_method").value = "rect"
    controls.adapt()
    assert all(disabled("layer_idx", "lookback", "context_type", "downsample_window", "cutoff_mult"))
    assert not any(disabled("n_outer_folds", "outer_gap", "outer_folding_type"))
    assert all(disabled("n_permutations", "block_trs")), "nested cross-validation is not permuted"
    box(controls, "use_train_test_split").value = True
    controls.adapt()
    assert not any(disabled("n_permutations", "block_trs"))
    box(controls, "significance").value = "shift"
    controls.adapt()
    assert disabled("n_shifts", "least_shift", "n_permutations") == [False, False, True]


def test_what_has_no_effect_is_out_of_sight(controls):
    def shown(*names):
        return [controls.fields[name].layout.display != "none" for name in names]

    outer, shift = ("outer_folding_type", "n_outer_folds", "outer_gap"), ("n_shifts", "least_shift")
    others = ("time_sigma", "extras", "delay_extras")
    assert not any(shown(*outer, *shift, *others))
    controls.show(replace(UNUSUAL, joined_with=("time", "extras")))
    controls.adapt()
    assert all(shown(*outer, *shift, *others))


def test_what_is_out_of_sight_does_not_keep_fit_off(controls, assembly):  # noqa: F811
    box(controls, "use_train_test_split").value = False
    box(controls, "significance").value = "shift"
    for name, typed in (("outer_gap", "-5"), ("least_shift", "-5"), ("n_shifts", "1")):
        box(controls, name).value = typed
        assert name in check(assembly, controls.read()[0])
    box(controls, "use_train_test_split").value = True
    box(controls, "significance").value = "permutation"
    problems = check(assembly, controls.read()[0])
    assert not problems.keys() & {"outer_gap", "least_shift", "n_shifts"}


def test_nested_permutations_give_no_pvalues_and_the_panel_shows_it(controls):
    note = controls.fields["significance"]
    box(controls, "significance").value = "permutation"
    for nested, expected in (
        (True, "No p-values: nested cross-validation needs the shift test"),
        (False, ""),
    ):
        box(controls, "use_train_test_split").value = not nested
        controls.adapt()
        assert (expected in texts(note)) and (bool(expected) or texts(note) == "")
    box(controls, "use_train_test_split").value = False
    box(controls, "significance").value = "shift"
    controls.adapt()
    assert texts(note) == ""
    labels = dict(box(controls, "significance").options)
    assert labels["shift test (refits)"] == "shift"
    assert labels["parametric test (assumes white noise)"] == "parametric"


def test_the_outer_folds_are_described(controls):
    box(controls, "use_train_test_split").value = False
    controls.adapt()
    assert "4 folds: whole stories" in texts(controls.fields["outer_folding_type"])
    controls.stories.lists["stories"].value = ("storya",)
    controls.adapt()
    found = texts(controls.fields["outer_folding_type"])
    assert "5 folds: contiguous parts of the recording, 80 s on both sides not trained on" in found
    box(controls, "outer_gap").value = "0"
    controls.adapt()
    assert "not trained on" not in texts(controls.fields["outer_folding_type"])
    # the default's own value is no change
    before = controls.settings
    box(controls, "outer_folding_type").value = "kfold"
    assert controls.changed_since(before) == []
    box(controls, "outer_folding_type").value = "timeseries"
    assert controls.changed_since(before) == ["outer_folding_type"]


def test_extras_are_those_of_the_data(assembly):  # noqa: F811
    stories = {
        name: replace(story, extras={"motion": np.ones(story.n_trs), "sound": np.ones(story.n_trs)})
        for name, story in assembly.stories.items()
    }
    with_extras = replace(assembly, stories=stories)
    made = Controls(assembly, Settings(), lambda: None, lambda *_: None, ModelLookup(lambda: None))
    made.adapt()
    assert made.extras.names.options == () and made.spaces.boxes["extras"].disabled
    made.use(with_extras)
    made.adapt()
    assert made.extras.names.options == ("motion", "sound") and not made.spaces.boxes["extras"].disabled
    made.spaces.boxes["extras"].value = True
    assert "at least one array of the data's extras, got none" in made.read()[1]["extras"]
    made.extras.names.value = ("sound",)
    assert made.settings.extras == ("sound",) and "extras" not in check(with_extras, made.settings)
    made.use(assembly)  # what these data lack is a problem, and is not dropped
    assert made.settings.extras == ("sound",) and "sound" in check(assembly, made.settings)["extras"]


def test_what_is_grey_does_not_keep_fit_off(controls):
    lobes, method = box(controls, "downsample_window"), box(controls, "downsample_method")
    lobes.value = "three"
    assert "downsample_window" in controls.read()[1]
    method.value = "rect"
    controls.adapt()
    settings, problems = controls.read()
    assert lobes.disabled and problems == {} and settings.downsample_window == 3
    method.value = "lanczos"
    controls.adapt()
    assert "downsample_window" in controls.read()[1]


def test_no_feature_space_is_said(controls):
    controls.spaces.boxes["language_model"].value = False
    _, problems = controls.read()
    assert "at least one feature space" in problems["modality"]


def test_stories_that_the_data_lack_are_not_dropped(controls):
    controls.show(replace(Settings(), stories=("storya", "elsewhere")))
    assert controls.settings.stories == ("storya", "elsewhere")
    controls.stories.lists["stories"].value = ("storya", "storyb")
    assert controls.settings.stories == ("storya", "storyb")
    controls.stories.lists["stories"].value = ()
    assert "at least one story" in controls.read()[1]["stories"]


def test_the_layers_follow_the_model_and_the_note_says_its_size(controls):
    box(controls, "model_name").value = str(TINY_MODEL)
    assert controls.adapt() is None
    assert box(controls, "layer_idx").max == 4
    assert "4 layers of 64 features, reads up to 511 tokens, 1 MB of memory" in texts(
        controls.fields["model_name"]
    )


def test_a_model_elsewhere_is_looked_up_without_waiting(assembly, monkeypatch):  # noqa: F811
    asked = []

    def slow(name, **_):
        asked.append(name)
        raise ModelError(f"{name} is not on this machine, and the hub cannot be reached")

    found = []
    lookup = ModelLookup(lambda: found.append(1))
    controls = Controls(assembly, Settings(), lambda: None, lambda *_: None, lookup)
    monkeypatch.setattr("encoding_nb.features.model_info", slow)
    box(controls, "model_name").value = "gpt2-medium"
    assert "Looking up this model" in controls.adapt()
    assert lookup.seeking.join(10) and found == [1] and asked == ["gpt2-medium"]
    assert "not on this machine" in controls.adapt() and asked == ["gpt2-medium"]
    lookup.forget("gpt2-medium")
    assert lookup.info("gpt2-medium") is None


def test_a_model_without_a_name_is_refused_at_once():
    assert "got ' '. The bundled model 'demo'" in ModelLookup(lambda: None).info(" ")


def test_a_large_model_says_its_memory_and_that_it_is_fetched():
    info = ModelInfo("big", n_layers=48, d_model=1600, n_ctx=None, n_parameters=1_500_000_000)
    assert describe(info) == (
        "48 layers of 1600 features, reads any number of tokens, 6.0 GB of memory, "
        "not on this machine: downloaded at its first use"
    )


def test_the_trimming_picture_is_drawn_when_it_is_in_sight(controls):
    assert controls.trimming.picture.png == b""
    controls.trimming.details.unfold()
    assert controls.trimming.drawing.join(30)
    assert controls.trimming.picture.png.startswith(b"\x89PNG") and "alt=" in controls.trimming.picture.value
    before = controls.trimming.picture.png
    controls.trimming.preset.value = "none"
    assert controls.trimming.drawing.join(30)
    assert controls.trimming.picture.png != before


def test_letters_that_are_no_choice_are_no_control(controls):
    model = box(controls, "model_name")
    assert isinstance(model, widgets.Combobox) and model.options[0] == "demo"


# ---------------------------------------------------------------------- numbers as text


@pytest.mark.parametrize(
    ("typed", "delays"),
    [("1, 2, 3, 4", (1, 2, 3, 4)), ("1-4", (1, 2, 3, 4)), ("0 2;5", (0, 2, 5)), ("-1, 2", (-1, 2)), ("", ())],
)
def test_delays_as_text(typed, delays):
    assert parse_delays(typed) == delays


@pytest.mark.parametrize("typed", ["1.5", "a", "1,,x", "3-"])
def test_delays_that_are_none(typed):
    with pytest.raises(ValueError, match="whole numbers of TRs"):
        parse_delays(typed)


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("1-20000000", "at most 100 delays, got 20,000,000"),
        ("1-99999999999999999999999", "whole numbers of TRs"),
        (" ".join(["1"] * 200), "at most 100 delays, got 200"),
        ("1, 5-3", "smaller numbers first, got '5-3'"),
    ],
)
def test_delays_that_run_away_or_backwards_are_refused(typed, said):
    with pytest.raises(ValueError, match=said):
        parse_delays(typed)


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("1 to 2 in 999999999 steps", "at most 500 alphas, got 999999999"),
        (f"1 to 2 in {'9' * 5000} steps", "at most 500 alphas"),
        (" ".join(["1"] * 501), "at most 500 alphas, got 501"),
        ("1 to 100 in 1 step", "at least two steps"),
        ("1 to inf in 3 steps", "Expected alphas"),
        ("nan", "Expected alphas"),
    ],
)
def test_alphas_that_run_away_are_refused(typed, said):
    with pytest.raises(ValueError, match=said):
        parse_alphas(typed)


@pytest.mark.parametrize(
    "typed", ["1e3", "16.9", "16.0", "", " ", "1_000", "0x10", "sixteen", "9" * 30, "1 6"]
)
def test_a_whole_number_is_taken_as_typed_or_refused(controls, typed):
    """A browser's box of numbers made 1 of "1e3" and 16 of "16.9", and went on showing what was typed."""
    field = controls.fields["lookback"]
    field.control.value = typed
    _, problems = controls.read()
    assert problems["lookback"].startswith("Expected lookback as a whole number in digits, such as 16, got ")
    controls.show_problems(problems)
    assert "whole number" in texts(field)


@pytest.mark.parametrize(("typed", "value"), [("16", 16), (" 016 ", 16), ("-3", -3), ("+4", 4)])
def test_whole_numbers(typed, value):
    assert parse_whole(typed, "it") == value


@pytest.mark.parametrize(("typed", "value"), [("0.75", 0.75), ("1e-8", 1e-8), (" 2 ", 2.0), ("-.5", -0.5)])
def test_numbers(typed, value):
    assert parse_number(typed, "it") == value and parse_number(write_number(value), "it") == value


@pytest.mark.parametrize("typed", ["", "0,5", "nan", "inf", "1e999", "half", "1_0"])
def test_numbers_that_are_none(controls, typed):
    box(controls, "cutoff_mult").value = typed
    assert controls.read()[1]["cutoff_mult"].startswith(
        "Expected cutoff as a number, such as 0.5 or 1e-8, got "
    )


def test_no_box_lets_the_browser_parse_a_number(controls):
    """IntText and FloatText take what JavaScript's parsers make of the letters."""

    def all_of(widget):
        yield widget
        for child in getattr(widget, "children", ()):
            yield from all_of(child)

    numeric = (widgets.IntText, widgets.FloatText, widgets.BoundedIntText, widgets.BoundedFloatText)
    assert not [w.description for w in all_of(controls) if isinstance(w, numeric)]
    for name in ("lookback", "seed", "fdr_q", "downsample_window"):
        assert isinstance(box(controls, name), widgets.Text) and not box(controls, name).continuous_update


def test_a_problem_is_named_as_its_control_is_on_the_page(controls):
    names = {
        "modality": "features",
        "joined_with": "features",
        "test_stories": "test on",
        "fir_delays": "delays (TR)",
    }
    assert {name: controls.label_of(name) for name in names} == names
    assert all(controls.label_of(f.name) for f in fields(Settings)) and controls.label_of("x_y") == "x y"


def test_a_name_that_breaks_the_look_up_does_not_leave_it_looking(monkeypatch):
    def broken(name, **_):
        raise RecursionError("no end")

    found = []
    lookup = ModelLookup(lambda: found.append(1))
    monkeypatch.setattr("encoding_nb.features.model_info", broken)
    for name in ("gpt2-medium", "b" * 300):
        assert lookup.info(name) is None
        assert lookup.seeking.join(10) and found
        said = lookup.info(name)
        assert "cannot be read as a language model (RecursionError: no end)" in said and len(said) < 250


@pytest.mark.parametrize("typed", ["1e2 to x in 7 steps", "-1 to 5 in 3", "a", "1 to 2 in 0"])
def test_alphas_that_are_none(typed):
    with pytest.raises(ValueError, match="Expected alphas"):
        parse_alphas(typed)


def test_alphas_of_the_settings_come_back_as_they_are():
    for alphas in (
        Settings().alpha_grid,
        tuple(huth_alphas(np.logspace(1, 3, 20))),
        (1.0, 10.0, 100.0),
        (3.0,),
    ):
        assert parse_alphas(write_alphas(alphas)) == alphas
    assert write_alphas(Settings().alpha_grid) == "100 to 1e+06 in 7 steps"
    assert write_alphas(Settings(modality="wordrate").alpha_grid) == "0.01 to 1e+04 in 7 steps"


@hypothesis_settings(deadline=None)
@given(
    st.lists(st.floats(1e-12, 1e12), min_size=1, max_size=6).map(tuple),
    st.lists(st.integers(-9, 30), min_size=1, max_size=6).map(tuple),
)
def test_numbers_survive_being_text(alphas, delays):
    assert parse_alphas(write_alphas(alphas)) == alphas
    assert parse_delays(KINDS["delays"].write(delays)) == delays
