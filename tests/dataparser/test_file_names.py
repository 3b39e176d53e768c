"""Numbers in names, and how two series of them belong together."""

import pytest

from das3r_ns.dataparser.file_names import constant_shift, counts_without_gaps, evenly_spaced, numbers_of


@pytest.mark.parametrize(
    ("numbers", "others", "shift"),
    [
        ([0, 1, 2], [1, 2, 3], 1),
        ([3, 1, 2], [0, 2, 1], -1),
        ([5, 9], [5, 9], 0),
        ([2, 4, 6], [3, 5, 7], 1),
        ([0, 1, 2], [1, 2, 4], None),
        ([0, 1], [0, 1, 2], None),
        ([], [], None),
    ],
)
def test_a_shift_is_the_same_for_all(numbers, others, shift):
    assert constant_shift(numbers, others) == shift


@pytest.mark.parametrize(
    ("numbers", "counts"), [([0, 1, 2], True), ([3, 1, 2], True), ([2, 3, 4], False), ([0, 1, 3], False), ([0], False)]
)
def test_counting_begins_at_zero_or_one(numbers, counts):
    assert counts_without_gaps(numbers) is counts


def test_even_spacing_is_in_any_order():
    assert evenly_spaced([4, 0, 2])
    assert not evenly_spaced([0, 2, 5])


def test_names_without_a_number_or_with_the_same_are_no_series():
    assert numbers_of(["a_007.png", "a_010.png"]) == [7, 10]
    assert numbers_of(["a.png", "a_1.png"]) is None
    assert numbers_of(["a_1.png", "b_1.png"]) is None
