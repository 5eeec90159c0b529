"""Ring caches say what full ones would: long texts, prompts beyond the width, rows of their own, going back."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from glassformer.errors import InputError
from glassformer.layers.ring import BandedState
from glassformer.layers.rows import RowState
from glassformer.layers.sites import record
from glassformer.models.config import Banded, Config, Learned, Relative, Rotary
from glassformer.models.decoder import Decoder

TOLERANCE = {"atol": 2e-5, "rtol": 1e-3}
SMALL = Config(
    vocab_size=30,
    d_model=16,
    n_heads=4,
    d_ff=16,
    n_encoder_layers=0,
    n_decoder_layers=2,
    positions=Learned(),
    max_length=200,
    norm_first=True,
    scale_embedding=False,
    init_std=0.3,
    dropout=0.0,
)


def network(width: int, every: int = 2, **choices: object) -> Decoder:
    torch.manual_seed(0)
    return Decoder(replace(SMALL, attention=Banded(width, every), **choices)).eval()  # type: ignore[arg-type]


def texts(rows: int, length: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 30, (rows, length), generator=torch.Generator().manual_seed(seed))


def test_a_ring_has_the_width_of_the_band() -> None:
    state = network(5).start(2, 160)
    assert isinstance(state, BandedState)
    assert state.keys.shape == state.values.shape == (1, 2, 4, 5, 4) and state.full.keys.shape == (1, 2, 4, 160, 4)
    assert state.capacity == 160
    assert network(64).start(1, 20).keys.shape[3] == 20  # no more than is needed


def test_without_bands_the_state_is_the_plain_one() -> None:
    assert type(network(5, every=3).start(1, 20)) is RowState
    assert type(Decoder(SMALL).start(1, 20)) is RowState


@pytest.mark.parametrize("width", [1, 2, 7, 64, 300])
@pytest.mark.parametrize("prompt", [1, 6, 7, 8, 100])
def test_a_long_text(width: int, prompt: int) -> None:
    """A prompt shorter or longer than the band, then one id at a time."""
    model, ids = network(width), texts(2, 150)
    whole, state = model(ids).logits, None
    with torch.no_grad():
        state = model.start(2, 150)
        logits = [model.step(ids[:, :prompt], None, state)]
        logits += [model.step(ids[:, place : place + 1], None, state) for place in range(prompt, 150)]
    torch.testing.assert_close(torch.stack(logits, 1), whole[:, prompt - 1 :], **TOLERANCE)


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_any_way_of_reading(data: st.DataObject) -> None:
    """Rows with chunks of their own lengths, copied, put beside each other, grown, taken back by one or to nothing."""
    rotary = {"positions": Rotary(100.0), "n_kv_heads": 2}
    model = network(
        data.draw(st.integers(1, 9)), data.draw(st.integers(1, 2)), **data.draw(st.sampled_from([{}, rotary]))
    )
    ids = texts(3, 60, data.draw(st.integers(0, 99)))
    whole, text = model(ids).logits, [0, 1, 2]
    state = model.start(3, data.draw(st.integers(1, 60)))
    for _ in range(data.draw(st.integers(1, 14))):
        match data.draw(st.sampled_from(["read", "read", "step", "step", "select", "back", "again", "put"])):
            case "select":
                order = data.draw(st.lists(st.integers(0, 2), min_size=3, max_size=3))
                state.select(torch.tensor(order))
                text = [text[row] for row in order]
            case "back":
                row = data.draw(st.integers(0, 2))
                state.rewind(
                    row, max(state.lengths[row] - 1, 0) if state.can_rewind(row, state.lengths[row] - 1) else 0
                )
            case "again":
                state.rewind(data.draw(st.integers(0, 2)), 0)
            case "put":
                row, other = data.draw(st.integers(0, 2)), model.start(1, 30)
                length = data.draw(st.integers(1, 30))
                model.step(ids[:1, :length], None, other)
                state.grow(length)
                state.put(torch.tensor([row]), other)
                text[row] = 0
            case kind:
                most = 1 if kind == "step" else 25
                new = [data.draw(st.integers(1, most)) for _ in range(3)]
                for row, (held, more) in enumerate(zip(state.lengths, new, strict=True)):
                    if held + more > 60:
                        state.rewind(row, 0)
                state.grow(max(state.lengths) + max(new))
                chunk = torch.zeros(3, max(new), dtype=torch.long)
                for row, (held, more) in enumerate(zip(state.lengths, new, strict=True)):
                    chunk[row, :more] = ids[text[row], held : held + more]
                level = len(set(new)) == 1 and data.draw(st.booleans())
                logits = model.step(chunk, None if level else torch.tensor(new), state)
                ends = torch.tensor(state.lengths) - 1
                torch.testing.assert_close(logits, whole[torch.tensor(text), ends], **TOLERANCE)


def test_what_was_forgotten_cannot_be_gone_back_to() -> None:
    model, ids = network(4), texts(1, 20)
    state = model.start(1, 20)
    model.step(ids[:, :10], None, state)
    assert state.can_rewind(0, 9) and not state.can_rewind(0, 8) and state.can_rewind(0, 0)
    state.rewind(0, 9)
    with pytest.raises(InputError, match="cannot go back from 9 to 8 positions: its banded layers have forgotten"):
        state.rewind(0, 8)
    with pytest.raises(InputError, match="has 9 positions, it cannot go back to 11"):
        state.rewind(0, 11)
    torch.testing.assert_close(model.step(ids[:, 9:10], None, state), model(ids[:, :10]).logits[:, -1], **TOLERANCE)


def test_a_plan_or_distances_get_full_caches() -> None:
    """What is seen of a step is then about the text's own positions; patterns keep to the band."""
    plain, ids = network(4), texts(1, 20)
    model, values = record(plain, ["self_attention.pattern[1]"])
    state = model.start(1, 20)
    assert type(state) is RowState
    model.step(ids[:, :12], None, state)
    logits = model.step(ids[:, 12:13], None, state)
    torch.testing.assert_close(logits, plain(ids[:, :13]).logits[:, -1], **TOLERANCE)
    assert values["self_attention.pattern[1]"][0, 0, 0].nonzero().flatten().tolist() == [9, 10, 11, 12]
    assert type(network(4, positions=Relative(8, 6)).start(1, 20)) is RowState


def test_a_ring_is_read_by_a_plan_too() -> None:
    """A copy that gets a state which another had begun says the same."""
    plain, ids = network(4), texts(2, 20)
    model, _ = record(plain, ["self_attention.pattern[1]"])
    state = plain.start(2, 20)
    for begin, end in ((0, 9), (9, 10), (10, 13), (13, 14)):
        logits = model.step(ids[:, begin:end], None, state)
        torch.testing.assert_close(logits, plain(ids[:, :end]).logits[:, -1], **TOLERANCE)
