"""The controls that critics ask for, in the panel: untrained twin, position, time, extras, shifts, high-pass."""

from dataclasses import replace

import numpy as np
import pytest

from encoding_nb.panel import ControlPanel
from encoding_nb.pipeline import run
from encoding_nb.records import load_run
from encoding_nb.settings import Settings

from ..pipeline.test_runs import TRIM, assembly  # noqa: F401 - a fixture
from .test_panel import NO_CACHE, TINY_MODEL, box

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
MODEL = Settings(model_name=str(TINY_MODEL), layer_idx=2, lookback=8, trimming=TRIM, n_permutations=50)


@pytest.fixture
def panel(assembly, tmp_path):  # noqa: F811
    stories = {
        name: replace(story, extras={"motion": np.random.default_rng(1).normal(size=(story.n_trs, 2))})
        for name, story in assembly.stories.items()
    }
    return ControlPanel(
        replace(assembly, stories=stories), memory=NO_CACHE, results_dir=tmp_path, settings=MODEL
    )


def tick(panel, *names):
    for name, tickbox in panel.controls.spaces.boxes.items():
        tickbox.value = name in names


def twin(panel):
    box(panel, "weights").value = "untrained"


def position(panel):
    tick(panel, "position")


def time(panel):
    tick(panel, "time")
    box(panel, "time_sigma").value = "1.5"


def extras(panel):
    tick(panel, "extras")
    panel.controls.extras.names.value = ("motion",)


def several(panel):
    tick(panel, "wordrate", "position", "extras")
    panel.controls.extras.names.value = ("motion",)


def shifts_and_high_pass(panel):
    tick(panel, "wordrate")
    box(panel, "use_train_test_split").value = False
    box(panel, "significance").value = "shift"
    box(panel, "n_shifts").value = "19"
    box(panel, "high_pass").value = "60"


CONTROLS = {
    twin: ({"weights": "untrained"}, "tiny-gpt2 untrained, layer 2, lookback 8"),
    position: ({"modality": "position"}, "position"),
    time: ({"modality": "time", "time_sigma": 1.5}, "time"),
    extras: ({"modality": "extras", "extras": ("motion",)}, "extras"),
    several: (
        {"modality": "wordrate", "joined_with": ("position", "extras"), "extras": ("motion",)},
        "word rate + position + extras",
    ),
    shifts_and_high_pass: (
        {
            "modality": "wordrate",
            "use_train_test_split": False,
            "significance": "shift",
            "n_shifts": 19,
            "high_pass": 60.0,
        },
        "word rate",
    ),
}


@pytest.mark.parametrize("choose", CONTROLS, ids=lambda choose: choose.__name__)
def test_a_control_is_chosen_fitted_saved_and_repeated_by_its_code(panel, choose):
    choose(panel)
    settings, label = CONTROLS[choose]
    assert panel.settings == replace(MODEL, **settings)
    assert not panel.fit_button.disabled, panel.fit_status.problems
    panel.fit()
    assert panel.join(120)
    alone = run(panel.assembly, panel.settings, memory=NO_CACHE, progress=False)
    np.testing.assert_array_equal(panel.result.scores, alone.scores)
    assert f"Shown: {label}." in panel.results.shown.value
    kept = load_run(panel.save())
    assert kept.settings == panel.settings
    np.testing.assert_array_equal(kept.scores, alone.scores)
    code = panel.results.code.view.code
    assert all(f"{name}={value!r}" in code for name, value in settings.items())


def test_the_twin_of_a_model_is_another_model(panel):
    panel.fit()
    assert panel.join(120)
    trained = panel.result.scores
    twin(panel)
    panel.fit()
    assert panel.join(120)
    assert not np.allclose(panel.result.scores, trained, equal_nan=True)
    labels = list(panel.session.remembered)
    assert "untrained" not in labels[-2] and "untrained" in labels[-1]


def test_a_shift_test_gives_pvalues_to_a_nested_run(panel):
    shifts_and_high_pass(panel)
    panel.fit()
    assert panel.join(120)
    assert panel.result.tested and "shift test" in panel.results.line.value
    brain = panel.results.brain
    brain.values.value = "score over shifted BOLD"
    assert brain.drawn(30)
    np.testing.assert_allclose(brain.view._values, panel.result.scores - panel.result.null_mean)
