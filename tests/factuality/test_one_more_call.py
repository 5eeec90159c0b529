"""P(True) and mutual information against the network, asked token by token."""

import math

import pytest
import torch
from factuality.small_records import made
from generation.small_decoders import decoder
from tasks.small_writers import writer

from glassformer.errors import InputError
from glassformer.factuality.one_more_call import (
    ONE_MORE_CALL,
    ask_again,
    conditional_mutual_information,
    p_true,
    pointwise_mutual_information,
    without_question,
)
from glassformer.factuality.records import record
from glassformer.tasks.model import Model


def long_writer() -> Model:
    model = writer(positions=256)
    assert model.network is decoder(max_length=256)
    return model


def probability(model: Model, ids: list[int], begin: int) -> float:
    """Of ids[begin:] after those before them, a whole pass for each."""
    found = 1.0
    for place in range(begin, len(ids)):
        with torch.no_grad():
            found *= float(model.network(torch.tensor([ids[:place]])).logits[0, -1].softmax(-1)[ids[place]])
    return found


def test_p_true_is_the_share_of_a_against_b() -> None:
    model = long_writer()
    prompt = (
        "Question: Who rides?\nProposed Answer: a man\nIs the proposed answer:\n (A) True\n (B) False\n"
        "The proposed answer is:"
    )
    encode = model.tokenizer.encode
    begin = len(encode(prompt))
    a, b = (probability(model, encode(prompt + option), begin) for option in (" (A)", " (B)"))
    assert encode(prompt + " (A)")[:begin] == encode(prompt)
    assert p_true(model, ["Who rides?"], [" a man\n"]) == pytest.approx([-math.log(a / (a + b))], rel=1e-4)


def test_p_true_of_many_is_that_of_each_and_shots_come_first() -> None:
    model = long_writer()
    questions, answers = ["Who?", "What is it?", "Where"], ["a man", "", "über"]
    each = [p_true(model, [q], [a])[0] for q, a in zip(questions, answers, strict=True)]
    assert p_true(model, questions, answers) == pytest.approx(each, abs=1e-5)
    assert all(value > 0 for value in each) and len(set(each)) == 3
    assert p_true(model, ["Who?"], ["a man"], shots="Question: bike\n") != pytest.approx(each[:1], abs=1e-5)
    with pytest.raises(InputError, match="needs its answer"):
        p_true(model, questions, answers[:2])


def test_mutual_information_against_the_network() -> None:
    model = writer()
    records = record(model, ["a man", "two women eat"], max_new_tokens=4)
    for one, free in zip(records, without_question(model, records), strict=True):
        asked = probability(model, [*one.prompt_ids, *one.ids], len(one.prompt_ids))
        unasked = probability(model, [0, *one.ids], 1)  # <|endoftext|> begins the model's texts
        expected = -(math.log(asked) - math.log(unasked)) / len(one.ids)
        assert pointwise_mutual_information(one, free) == pytest.approx(expected, abs=1e-4)
    free = without_question(model, records[:1], free="the road")[0]
    assert free.prompt_ids == tuple(model.tokenizer.encode("the road")) and free.ids == records[0].ids


def test_conditional_mutual_information_by_hand() -> None:
    one = made(logprobs=(-1.0, -2.0, -3.0), entropies=(4.0, 3.0, 5.0))
    free = made(logprobs=(-10.0, -20.0, -30.0))
    assert pointwise_mutual_information(one, free) == pytest.approx(-(9 + 18 + 27) / 3)
    assert conditional_mutual_information(one, free, 0.1, 3.5) == pytest.approx(-(-1 + 1 - 2 - 3 + 3) / 3)
    assert conditional_mutual_information(one, free, 1, 0) == pytest.approx(pointwise_mutual_information(one, free))
    assert conditional_mutual_information(one, free, 1, 9) == pytest.approx(2)
    with pytest.raises(InputError, match="one answer"):
        pointwise_mutual_information(one, made(ids=(7, 8, 9)))


def test_the_table_tells_what_the_functions_tell() -> None:
    model = long_writer()
    one = record(model, ["a man"], max_new_tokens=4)[0]
    again = ask_again(model, [one], ["Who?"])[0]
    free = without_question(model, [one])[0]
    assert {name: score.function(again) for name, score in ONE_MORE_CALL.items()} == pytest.approx(
        {
            "p(true)": p_true(model, ["Who?"], [one.text])[0],
            "mutual information": pointwise_mutual_information(one, free),
            "conditional mutual information": conditional_mutual_information(one, free),
        }
    )
    assert all(score.passes == "one more call" and score.paper for score in ONE_MORE_CALL.values())
