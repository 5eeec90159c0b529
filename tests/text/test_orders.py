"""Orders without a list: every number once, alike for a key, different for another, without a pattern."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glassformer.text.orders import Order


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 3000), st.integers(0, 2**31))
def test_every_number_stands_somewhere_once(size, seed):
    found = Order(size, (seed, 1))(np.arange(size))
    assert found.dtype == np.int64 and sorted(found.tolist()) == list(range(size))


def test_places_are_looked_up_alone_and_in_any_shape():
    order = Order(1000, (3,))
    whole = order(np.arange(1000))
    assert order(np.array([17])).tolist() == [whole[17]]
    places = np.array([[5, 999], [0, 5]])
    assert np.array_equal(order(places), whole[places])


def test_keys_give_other_orders():
    orders = [Order(500, key)(np.arange(500)) for key in ((1, 0), (1, 1), (2, 0))]
    assert np.array_equal(orders[0], Order(500, (1, 0))(np.arange(500)))
    for first, second in ((0, 1), (0, 2), (1, 2)):
        assert (orders[first] == orders[second]).sum() < 10  # one is expected


def test_an_order_is_the_same_for_ever():
    """A run that is resumed with another version must go on in its order."""
    assert Order(10, (42, 2, 0))(np.arange(10)).tolist() == FIXED


FIXED = [4, 7, 9, 8, 1, 3, 2, 5, 6, 0]


@pytest.mark.parametrize("size", [4096, 5000, 100_003])
def test_it_has_no_pattern(size):
    """As of random permutations: where a number goes tells nothing of where its neighbour goes, or of its size."""
    found = np.stack([Order(size, (key,))(np.arange(size)) for key in range(20)]).astype(float)
    middle, spread = (size - 1) / 2, size / np.sqrt(12)
    scaled = (found - middle) / spread
    after = (scaled[:, 1:] * scaled[:, :-1]).mean()
    along = (scaled * (np.arange(size) - middle) / spread).mean()
    bound = 5 / np.sqrt(20 * size)
    assert abs(after) < bound and abs(along) < bound
    halves = np.array([(row[: size // 2] < size / 2).mean() for row in found])
    assert abs(halves - 0.5).max() < 5 * 0.5 / np.sqrt(size // 2)


def test_trillions_need_no_memory():
    order = Order(10**12, (1,))
    found = order(np.arange(10**12 - 1000, 10**12))
    assert len(set(found.tolist())) == 1000 and found.min() >= 0 and found.max() < 10**12
