"""`Delayer` as scikit-learn checks it, against `add_delays` and the design matrix of a run."""

import numpy as np
import pytest
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from encoding_nb import Assembly, Settings, add_delays, pipeline
from encoding_nb.design import TRIMMINGS
from encoding_nb.design.estimators import Delayer

ORDER = "rows are moments in time: a row's delayed features depend on the rows before it"


@parametrize_with_checks(
    [Delayer(), Delayer([-1, 0, 2])],
    expected_failed_checks=lambda estimator: {
        "check_methods_sample_order_invariance": ORDER,
        "check_methods_subset_invariance": ORDER,
    },
)
def test_scikit_learn_checks(estimator, check):
    check(estimator)


@pytest.mark.parametrize("delays", [[1, 2, 3, 4], (-2, 0, 3), [0], [30], 2, np.array([1, 3])])
def test_equals_add_delays(delays):
    X = np.random.default_rng(0).standard_normal((20, 3)).astype(np.float32)
    found = Delayer(delays).fit_transform(X)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, add_delays(X, delays))


@pytest.mark.parametrize("stories", [np.repeat([1, 0, 2], [5, 8, 7]), np.arange(20) % 2])
def test_stories_do_not_reach_into_each_other(stories):
    X = np.random.default_rng(0).standard_normal((20, 3))
    found = Delayer([1, 2, -1]).fit_transform(X, groups=stories)
    for story in np.unique(stories):
        rows = stories == story
        np.testing.assert_array_equal(found[rows], add_delays(X[rows], [1, 2, -1]))


def test_columns_are_named_by_feature_and_delay():
    model = Delayer([2, -1]).fit(np.zeros((4, 2)))
    assert model.get_feature_names_out(["rate", "length"]).tolist() == [
        "rate_delay2", "length_delay2", "rate_delay-1", "length_delay-1",
    ]  # fmt: skip


@pytest.mark.parametrize("delays", [[], [0.5], ["1"], "12"])
def test_delays_that_are_not_whole_numbers_are_refused_in_fit(delays):
    with pytest.raises(ValueError, match="whole numbers of TRs"):
        Delayer(delays).fit(np.ones((4, 2)))


def test_one_story_of_each_row_is_needed():
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        Delayer().fit(np.ones((4, 2))).transform(np.ones((4, 2)), groups=[1, 2])


def test_delayed_and_scaled_is_the_design_matrix_of_a_run():
    rng = np.random.default_rng(0)
    stories = {
        name: {
            "words": [f"word{i}" for i in range(150)],
            "onsets": np.sort(rng.uniform(0, 120, 150)),
            "bold": rng.standard_normal((60, 4)).astype(np.float32),
        }
        for name in ("train", "test")
    }
    assembly = Assembly.from_arrays(stories, subject="s", tr=2.0, test_stories=["test"])
    settings = Settings(
        modality="wordrate", fir_delays=(1, 2, 3, 4), trimming=TRIMMINGS["none"], chunk_length=10
    )
    plan = pipeline.plan_run(assembly, settings)
    sampled = {story.name: pipeline.sample_story(plan, story) for story in plan.stories}
    data = pipeline.design_matrices(plan, sampled)
    model = make_pipeline(Delayer([1, 2, 3, 4]), StandardScaler())
    for name, X in (("train", data.X), ("test", data.X_test)):
        np.testing.assert_allclose(model.fit_transform(sampled[name].values), X, atol=1e-5)
