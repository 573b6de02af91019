"""The plot of a shift test: every number that it draws."""

from dataclasses import replace

import numpy as np

from encoding_nb import Settings, plot_shift_test
from encoding_nb.pipeline import ShiftTest


def test_a_shift_test_is_drawn_with_its_nulls_and_p_values():
    rng = np.random.default_rng(0)
    nulls = rng.normal(0.02, 0.05, size=(99, 3))
    observed = np.array([0.4, 0.02, 0.05])
    test = ShiftTest(
        Settings(), None, "r2", "bold", ("AC", "Broca", "V1"), None, observed, nulls, np.zeros((99, 1), int)
    )
    ax = plot_shift_test(test).axes[0]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["mean of 3 regions", "AC", "Broca", "V1"]
    assert ax.get_xlabel() == "R²" and "least p 0.01" in ax.figure.get_suptitle()
    dots = ax.collections[1]
    np.testing.assert_allclose(dots.get_offsets()[:, 0], [observed.mean(), *observed])
    bars = np.array(ax.collections[0].get_segments())[1:, :, 0]
    np.testing.assert_allclose(bars.T, np.quantile(nulls, [0.025, 0.975], axis=0))
    p = (1 + (nulls >= observed).sum(axis=0)) / 100
    assert [text.get_text() for text in ax.texts][1:] == [f"p {value:.3f}" for value in p]
    filled = [tuple(colour[:3]) != (1, 1, 1) for colour in dots.get_facecolors()]
    assert filled[1:] == test.significant.tolist() == [True, False, False]
    many = replace(test, names=tuple(map(str, range(90))), observed=np.arange(90.0), nulls=rng.normal(size=(19, 90)),
                   voxels=np.arange(90), against=Settings())  # fmt: skip
    ax = plot_shift_test(many).axes[0]
    assert len(ax.get_yticks()) == 41 and ax.get_xlabel() == "gain in R²"
