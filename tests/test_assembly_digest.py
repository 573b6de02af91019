"""What tells arrays apart. Digests of whole data sets are tested with the records that hold them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from encoding_nb.assembly import fingerprint

DTYPES = st.sampled_from(["float16", "float32", "float64", "int16", "uint8", ">f4"])
VALUES = arrays(DTYPES, array_shapes(min_dims=2, max_dims=3, max_side=9))


@given(values=VALUES, data=st.data())
def test_a_fingerprint_shows_any_one_change(values, data):
    before = fingerprint(values)
    assert fingerprint(values.copy()) == before
    changed = values.copy()
    at = tuple(data.draw(st.integers(0, n - 1)) for n in values.shape)
    changed.view(f"u{values.dtype.itemsize}")[at] ^= 1 << data.draw(
        st.integers(0, 8 * values.dtype.itemsize - 1)
    )
    assert fingerprint(changed) != before


@given(values=arrays("float64", array_shapes(min_dims=2, max_dims=2, min_side=2, max_side=8)), data=st.data())
def test_changes_that_undo_each_other_in_sums_show(values, data):
    """Signs of a rectangle's corners, two in each row and column; corners that change places."""
    (a, b), (c, d) = (
        data.draw(st.lists(st.integers(0, n - 1), min_size=2, max_size=2, unique=True)) for n in values.shape
    )
    corners = np.ix_([a, b], [c, d])
    for change in (np.negative, lambda corner: corner[::-1], lambda corner: corner[:, ::-1]):
        changed = values.copy()
        changed[corners] = change(values[corners])
        same = changed.tobytes() == values.tobytes()
        assert (fingerprint(changed) == fingerprint(values)) is same


def test_shape_dtype_and_order_are_part_of_it():
    values = np.arange(12, dtype="i4").reshape(3, 4)
    others = [values.reshape(4, 3), values.view("f4"), values.astype("i8"), values[:, :3], values[:2]]
    assert fingerprint(values) not in map(fingerprint, others)
    assert fingerprint(values[:, ::2]) == fingerprint(values[:, ::2].copy())
    by_columns = np.asfortranarray(values)
    assert fingerprint(by_columns) == fingerprint(by_columns.copy("F"))
    by_columns[1, 2] += 1
    assert fingerprint(by_columns) != fingerprint(np.asfortranarray(values))


@pytest.mark.parametrize("dtype", [np.longdouble, np.complex64, bool])
def test_any_dtype_of_numbers_has_one(dtype):
    values = np.ones((3, 4), dtype)
    assert fingerprint(values) == fingerprint(values.copy())
    assert fingerprint(values) != fingerprint(values * 0)


def test_no_rows_and_no_columns():
    assert fingerprint(np.empty((0, 4))) != fingerprint(np.empty((4, 0)))
