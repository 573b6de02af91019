"""Folds: what cannot be is refused under the argument that is to blame. Their values: `test_cv.py`."""

import numpy as np
import pytest
from hypothesis import given, reject
from hypothesis import strategies as st
from sklearn.model_selection import KFold

from encoding_nb.ridge import FOLDING_TYPES, FoldError, check_folds, make_folds


@pytest.mark.parametrize(
    ("options", "argument", "says"),
    [
        ({"n_folds": 2.5}, "n_folds", "a whole number of 2 or more, got 2.5"),
        ({"n_folds": "5"}, "n_folds", "got '5'"),
        ({"n_folds": True}, "n_folds", "got True"),
        ({"n_rows": 100.0}, "n_rows", "a whole number of 0 or more, got 100.0"),
        ({"n_rows": "100"}, "n_rows", "a whole number of 0 or more, got '100'"),
        (
            {"n_rows": np.zeros((100, 3))},
            "n_rows",
            r"the number of rows, got rows of shape \(100, 3\): pass len",
        ),
        ({"n_folds": 51}, "n_folds", "51 folds need at least 102 rows, got 100"),
        ({"chunk_length": 2.5}, "chunk_length", "got 2.5"),
        ({"chunk_length": float("nan")}, "chunk_length", "got nan"),
        ({"chunk_length": 30}, "chunk_length", "100 rows make 4 chunks"),
        ({"trim_size": 1.5}, "trim_size", "got 1.5"),
        ({"chunk_length": 10**30}, "chunk_length", "100 rows make 1 chunks"),
        ({"folding_type": "kfold_trimmed", "trim_size": 10**30}, "n_folds", "Trimming leaves a fold with 0"),
        ({"seed": -1}, "seed", "a whole number of 0 or more, got -1"),
        ({"seed": "x"}, "seed", "got 'x'"),
        ({"folding_type": ["kfold"]}, "folding_type", "must be one of chunked"),
        ({"folding_type": "group"}, "groups", "needs groups"),
        ({"folding_type": "group", "groups": np.repeat([0, 1, 2], [40, 40, 20])}, "n_folds", "use at most 3"),
        ({"folding_type": "group", "groups": np.zeros(100)}, "n_folds", "use more stories, or another"),
        ({"n_rows": 101, "n_folds": 6}, "chunk_length", "a fold with 1 rows to score"),
        (
            {"n_rows": 101, "n_folds": 6, "folding_type": "chunked_contiguous"},
            "chunk_length",
            "a fold with 1 rows to score",
        ),
        (
            {"folding_type": "chunked_trimmed", "trim_size": 10},
            "chunk_length",
            "Trimming leaves a fold with 0",
        ),
        ({"folding_type": "kfold_trimmed", "trim_size": 10}, "n_folds", "Trimming leaves a fold with 0"),
        ({"n_rows": 4, "n_folds": 2, "folding_type": "timeseries"}, "n_folds", "1 rows to score"),
    ],
)
def test_what_cannot_be_is_refused_under_its_argument(options, argument, says):
    with pytest.raises(FoldError, match=says) as raised:
        make_folds(**{"n_rows": 100} | options)
    assert raised.value.argument == argument


@pytest.mark.parametrize("folding_type", FOLDING_TYPES)
def test_numbers_of_numpy_are_as_good(folding_type):
    options = {"folding_type": folding_type, "groups": np.repeat(np.arange(5), 20)}
    plain = make_folds(100, n_folds=3, chunk_length=12, trim_size=2, seed=4, **options)
    numpys = make_folds(
        100, n_folds=np.int64(3), chunk_length=np.int32(12), trim_size=np.int8(2), seed=np.uint8(4), **options
    )
    for a, b in zip(plain, numpys, strict=True):
        assert np.array_equal(a.train, b.train) and np.array_equal(a.test, b.test)


def test_folds_may_come_from_a_generator():
    X = np.zeros((20, 1))
    given = list(KFold(5).split(X))
    for folds in (check_folds(KFold(5).split(X), 20), check_folds(iter(given), 20), check_folds(given, 20)):
        assert len(folds) == 5
        assert all(np.array_equal(fold.test, test) for fold, (_, test) in zip(folds, given, strict=True))


@pytest.mark.parametrize(
    ("folds", "says"),
    [
        ([], "is empty"),
        (iter(()), "is empty"),
        (5, r"must be pairs of .* got 5: use make_folds\(10\)"),
        (KFold(5), r"must be pairs of .* got KFold.* or list\(KFold\(5\).split\(X\)\)"),
        ("kfold", "must be pairs of .* got 'kfold'"),
        ([np.arange(9)], "Fold 0 must be a pair"),
        ([(np.arange(4),)], "Fold 0 must be a pair"),
        ([3], "Fold 0 must be a pair of .* got 3"),
    ],
)
def test_given_folds_that_are_none_are_said(folds, says):
    with pytest.raises(ValueError, match=says):
        check_folds(folds, 10)


# ---------------------------------------------------------------------- gaps


@given(
    lengths=st.lists(st.integers(8, 40), min_size=1, max_size=4),
    gap=st.integers(0, 12),
    folding_type=st.sampled_from(["kfold", "kfold_trimmed", "chunked", "chunked_contiguous", "timeseries"]),
    trim_size=st.integers(0, 1),
)
def test_a_gap_leaves_out_the_rows_near_what_is_held_out_in_the_same_story(
    lengths, gap, folding_type, trim_size
):
    groups = np.repeat(np.arange(len(lengths)), lengths)
    options = {
        "folding_type": folding_type,
        "n_folds": 2,
        "chunk_length": 4,
        "trim_size": trim_size,
        "groups": groups,
    }
    n = len(groups)
    try:
        plain = make_folds(n, **options)
    except FoldError:  # too few rows without a gap, too
        reject()
    expected = []
    for fold in plain:  # brute force, row by row
        out = np.setdiff1d(np.arange(n), fold.train)
        expected.append(
            [i for i in fold.train if not any(abs(i - j) <= gap and groups[i] == groups[j] for j in out)]
        )
    if min(map(len, expected)) < 2:
        with pytest.raises(FoldError, match=f"A gap of {gap} rows on both sides") as raised:
            make_folds(n, gap=gap, **options)
        assert raised.value.argument == "gap"
        return
    for fold, before, train in zip(make_folds(n, gap=gap, **options), plain, expected, strict=True):
        assert fold.train.tolist() == train and fold.test.tolist() == before.test.tolist()
