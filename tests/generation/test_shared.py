"""A beginning that is read once: what follows it is what the whole texts give."""

import pytest
import torch
from generation.small_decoders import END, POSITIONS, byte_level, decoder
from generation.test_engine import recomputed, request
from hypothesis import given, settings
from hypothesis import strategies as st

from glassformer.errors import InputError
from glassformer.generation.engine import Engine, generate
from glassformer.generation.requests import Request
from glassformer.generation.shared import AfterBeginning, beginning_of


def after(network, texts, **settings):
    beginning = beginning_of([text.ids for text in texts])
    engine = Engine(AfterBeginning(network, beginning), byte_level(), eos_ids=[END], **settings)
    parts = [
        Request(text.ids[len(beginning) :], text.max_new_tokens, text.sampling, seed=text.seed, row=text.row)
        for text in texts
    ]
    return generate(engine, parts)


@pytest.mark.parametrize("rotary", [False, True])
@settings(max_examples=15, deadline=None)
@given(st.integers(1, 12), st.lists(st.integers(1, 20), min_size=2, max_size=6), st.integers(1, 7), st.integers(1, 4))
def test_what_follows_is_what_whole_texts_give(rotary, shared, lengths, chunk, rows):
    network, first = decoder(rotary), request(shared).ids
    texts = []
    for number, length in enumerate(lengths):
        tail = request(length, number)
        texts.append(Request((*first, *tail.ids), 8, tail.sampling, seed=7, row=number))
    for text, one in zip(texts, after(network, texts, chunk=chunk, rows=rows), strict=True):
        ids, logprobs = recomputed(network, text)
        assert list(one.ids) == ids and list(one.logprobs) == pytest.approx(logprobs, abs=1e-4)


def test_texts_end_at_the_last_position():
    texts = [Request((*range(1, 41), last), 20) for last in (50, 60, 70)]
    for text, one in zip(texts, after(decoder(), texts), strict=True):
        ids, _ = recomputed(decoder(), text)
        assert list(one.ids) == ids and len(ids) == POSITIONS - 41
        assert one.finish_reason == "length"


def test_the_beginning_leaves_every_text_an_id():
    assert beginning_of([[1, 2, 3, 4], [1, 2, 5]]) == [1, 2]
    assert beginning_of([[1, 2, 3], [1, 2, 3, 4]]) == [1, 2] == beginning_of([[1, 2, 3]])
    assert beginning_of([[1], [1, 2]]) == [] == beginning_of([]) == beginning_of([[2, 1], [3, 1]])


def test_a_beginning_that_cannot_be():
    for beginning in ([], [1] * POSITIONS):
        with pytest.raises(InputError, match=f"from 1 to {POSITIONS - 1} ids"):
            AfterBeginning(decoder(), beginning)


def test_the_mode_of_the_network_is_left_as_it_was():
    network = decoder()
    network.train()
    try:
        both = AfterBeginning(network, [1, 2])
        assert network.training and both.training
        assert not torch.is_inference_mode_enabled()
    finally:
        network.eval()
