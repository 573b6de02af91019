"""What is made ready before a run: found by it, and nothing where no run would want it."""

from dataclasses import replace

import pytest
from joblib import Memory

from encoding_nb.pipeline import KeptInputs, kept_inputs, matrices, preparing
from encoding_nb.scoring import correlations
from encoding_nb.settings import Settings

from .test_kept_inputs import SETTINGS, WIDER, assembly, fit, made, prepare  # noqa: F401 - fixtures
from .test_runs import NO_CACHE, RATE, TRIM

pytestmark = pytest.mark.filterwarnings("ignore:.*no variance")


def test_prepare_leaves_a_run_nothing_but_its_own_work(assembly, monkeypatch):  # noqa: F811
    settings = replace(RATE, trimming=replace(TRIM, test_features_start=17, test_targets_start=7))
    preparing.prepare(assembly, settings, memory=NO_CACHE)
    monkeypatch.setattr(correlations, "noise_ceiling", lambda repeats: pytest.fail("computed again"))
    assert fit(assembly, settings).noise_ceiling[0] > 0.8
    preparing.prepare(assembly, replace(settings, fdr_q=7.0), memory=NO_CACHE)


def test_what_was_prepared_is_not_made_again(assembly, made):  # noqa: F811
    inputs = KeptInputs()
    for settings in (SETTINGS, WIDER):
        assert prepare(assembly, settings, inputs)
        made.clear()
        fit(assembly, settings, inputs)
        assert not made


def test_a_large_design_is_left_to_its_run(assembly, made, monkeypatch):  # noqa: F811
    monkeypatch.setattr(kept_inputs, "PREPARED_VALUES", 100)
    assert prepare(assembly, SETTINGS, KeptInputs()) and not made


def test_nothing_is_prepared_for_settings_that_no_run_takes(assembly, made):  # noqa: F811
    assert prepare(assembly, replace(SETTINGS, fdr_q=7.0), KeptInputs()) and not made


def test_cached_is_what_a_model_has_read(demo, tmp_path):
    train, test = list(demo.stories)[:2]
    one = Settings(stories=(train, test), test_stories=(test,), layer_idx=1, lookback=4)
    elsewhere = Memory(tmp_path, verbose=0)
    assert not preparing.is_cached(demo, one, memory=elsewhere)
    for name in (train, test):
        assert list(matrices.sampled_steps(demo.stories[name], one, memory=elsewhere))
        assert preparing.is_cached(demo, one, memory=elsewhere) is (name == test)
    assert preparing.is_cached(demo, replace(one, layer_idx=2), memory=elsewhere), "all layers are kept"
    assert not preparing.is_cached(demo, replace(one, lookback=5), memory=elsewhere)
    assert preparing.is_cached(demo, replace(one, modality="wordrate"), memory=Memory(tmp_path / "empty"))
