"""The most probable tokens are those that a full sort finds."""

import pytest
import torch

from glassformer.generation.candidates import best, largest, next_tokens


@pytest.mark.parametrize("width", [3, 127, 256, 300, 1000, 8191])
@pytest.mark.parametrize("count", [1, 2, 6, 33])
def test_largest_equals_topk(width: int, count: int) -> None:
    values = torch.randn(70, width, generator=torch.Generator().manual_seed(width))
    count = min(count, width)
    top = values.topk(count)
    found, columns = largest(values, count)
    assert torch.equal(found, top.values)
    assert torch.equal(columns, top.indices)


@pytest.mark.parametrize("width", [3, 256, 511, 512, 513, 1000, 8191])
@pytest.mark.parametrize("rows", [1, 7])
def test_best_is_the_first_of_the_largest(width: int, rows: int) -> None:
    draw = torch.Generator().manual_seed(width)
    for values in (torch.randn(rows, width, generator=draw), torch.randint(0, 3, (rows, width), generator=draw)):
        found, places = best(values.float())
        assert torch.equal(found, values.float().amax(-1))
        assert places.tolist() == [row.index(max(row)) for row in values.tolist()]


def test_best_of_what_is_no_number() -> None:
    values = torch.randn(5, 1000, generator=torch.Generator().manual_seed(0))
    values[2, 700] = float("nan")
    values[3] = float("-inf")
    found, places = best(values)
    assert found.isnan().tolist() == [False, False, True, False, False]
    assert found[3] == float("-inf") and places[3] == 0


def test_largest_among_equals() -> None:
    """Ties and minus infinities: the values are right, and the columns are distinct and hold them."""
    values = torch.randint(0, 3, (50, 700), generator=torch.Generator().manual_seed(0)).float()
    values[:25, 20:] = float("-inf")
    found, columns = largest(values, 30)
    assert torch.equal(found, values.topk(30).values)
    assert torch.equal(values.gather(1, columns), found)
    assert all(len(set(row)) == 30 for row in columns.tolist())


def test_next_tokens_are_log_probabilities() -> None:
    logits = torch.randn(130, 900, generator=torch.Generator().manual_seed(0)) * 3
    before = logits.clone()
    logprobs, ids = next_tokens(logits, 4, never=())
    torch.testing.assert_close(logprobs, logits.log_softmax(-1).topk(4).values)
    assert torch.equal(logits, before)
    assert torch.equal(ids, logits.topk(4).indices)


def test_forbidden_tokens_come_last_and_leave_the_others_their_probability() -> None:
    logits = torch.tensor([[5.0, 1.0, 3.0, 2.0]])
    logprobs, ids = next_tokens(logits, 10, never=(0, 2))
    assert ids[0, :2].tolist() == [3, 1]
    torch.testing.assert_close(logprobs[0, :2], logits.log_softmax(-1)[0, [3, 1]])
    assert torch.isneginf(logprobs[0, 2:]).all()
