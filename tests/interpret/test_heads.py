"""Tags and statistics of heads: heads built by hand are found, numbers equal plain loops."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch
from interpret.small_networks import both, ids_of, network_of
from tasks.small_models import model_of
from tasks.small_writers import reader, writer
from torch import Tensor

from glassformer.errors import InputError
from glassformer.interpret.heads import _repeated, attention_statistics, head_tags
from glassformer.interpret.trace import trace
from glassformer.models.config import Config, Learned, RecurrentConfig
from glassformer.models.decoder import Decoder
from glassformer.models.recurrent import Recurrent
from glassformer.text.pipeline import TextPipeline
from glassformer.text.tokenizer import Tokenizer

V, P = 40, 56
TOKEN, PLACE, BEFORE = slice(0, V), slice(V, V + P), slice(V + P, 2 * V + P)


def looking_back() -> Decoder:
    """Two layers of four heads. Token and position are one-hot. In layer 0 the heads look at the token before (and copy
    it to a place of its own), at themselves, at the first token, and everywhere alike; in layer 1 one looks for a token
    that came after its own, and one for its own."""
    width = 2 * V + P
    config = Config(V, None, width, 4, 64, 1, 0, 2, Learned(), P, True, norm="rms", bias=False, dropout=0.0,
                    scale_embedding=False, tie_head=False)  # fmt: skip
    network = Decoder(config).eval()
    with torch.no_grad():
        for parameter in network.stack.blocks.parameters():
            if parameter.ndim == 2:
                parameter.zero_()
        network.stack.embedding.token.weight.copy_(torch.eye(V, width))
        network.stack.embedding.position.zero_()
        network.stack.embedding.position[:, PLACE] = torch.eye(P)
        first, second = (block.self_attention for block in network.stack.blocks)
        query, key = (getattr(first, name).weight.view(4, 64, width) for name in ("to_query", "to_key"))
        for head, back in ((0, 1), (1, 0)):
            query[head, :P, PLACE] = 30 * torch.eye(P).roll(back, 1)
            key[head, :P, PLACE] = torch.eye(P)
        query[2, 0, PLACE], key[2, 0, V] = 30.0, 1.0
        first.to_value.weight.view(4, 64, width)[0, :V, TOKEN] = torch.eye(V)
        first.to_output.weight.view(width, 4, 64)[BEFORE, 0, :V] = torch.eye(V)
        query, key = (getattr(second, name).weight.view(4, 64, width) for name in ("to_query", "to_key"))
        for head, where in ((0, BEFORE), (1, TOKEN)):
            query[head, :V, TOKEN] = 30 * torch.eye(V)
            key[head, :V, where] = torch.eye(V)
    return network


def test_heads_that_were_built_are_tagged() -> None:
    found = head_tags(looking_back())
    assert found.tags[0, 0] == ["previous token"] and found.tags[0, 1] == ["current token"]
    assert found.tags[0, 2] == ["first token"] and (0, 3) not in found.tags
    assert found.tags[1, 0] == ["induction"] and "duplicate token" in found.tags[1, 1]
    assert found.heads("induction") == [(1, 0)] and found.heads("previous token") == [(0, 0)]
    assert float(found.scores["induction"][1, 0]) > 0.9 and float(found.scores["duplicate token"][1, 1]) > 0.4
    assert float(found.scores["previous token"][0, 0]) > 0.9
    table = found.table()
    assert "5 of 8 heads give more than 0.4" in table and "self_attention[1].head[0]" in table
    stored = json.loads(json.dumps(found.to_json()))
    assert {"layer": 1, "head": 0, "tags": ["induction"]} in stored["tags"]
    assert len(head_tags(looking_back(), threshold=0.999).tags) < 5


def test_scores_equal_plain_loops() -> None:
    network = network_of("Llama")
    found, inputs = head_tags(network, seed=3), _repeated(network, 3)
    ids = inputs.text.ids
    assert ids.shape == (8, 48) and torch.equal(ids[:, :24], ids[:, 24:]) and int(ids.min()) > 2
    assert all(len(set(row.tolist())) == 24 for row in ids)
    pattern = trace(network, ids, "self_attention.pattern[1] @ *<-*")["self_attention.pattern[1] @ *<-*"]
    given: dict[str, list[float]] = {name: [] for name in found.scores}
    for text, row in enumerate(ids.tolist()):
        for q in range(48):
            looks = pattern[text, 2, q].tolist()
            if q >= 2:
                given["previous token"].append(looks[q - 1])
                given["current token"].append(looks[q])
                given["first token"].append(looks[0])
            before = [k for k in range(q) if row[k] == row[q]]
            if before:
                given["duplicate token"].append(sum(looks[k] for k in before))
                given["induction"].append(sum(looks[k + 1] for k in before))
    for name, values in given.items():
        assert float(found.scores[name][1, 2]) == pytest.approx(sum(values) / len(values), abs=1e-6), name
    assert all(torch.equal(score, head_tags(network, seed=3).scores[name]) for name, score in found.scores.items())
    assert not torch.equal(found.scores["induction"], head_tags(network).scores["induction"])


def test_texts_decide_three_of_the_scores() -> None:
    network, rows = network_of("GPT"), ids_of("GPT")[0]
    drawn, given = head_tags(network), head_tags(network, rows)
    for name in ("induction", "duplicate token"):
        assert torch.equal(drawn.scores[name], given.scores[name])
    pattern = trace(network, rows, "self_attention.pattern[0] @ *<-*")["self_attention.pattern[0] @ *<-*"]
    looks = [float(pattern[text, 1, q, q - 1]) for text, row in enumerate(rows) for q in range(2, len(row))]
    assert float(given.scores["previous token"][0, 1]) == pytest.approx(sum(looks) / len(looks), abs=1e-6)
    with pytest.raises(InputError, match="too short for 'previous token'"):
        head_tags(network, [[5, 6]])


@pytest.mark.parametrize("model", ["writer", "reader", "pair"])
def test_models_read_random_words_in_their_frame(model: str) -> None:
    if model == "pair":
        words = "a man in blue shirt rides the bike on road"
        made = model_of(Tokenizer.train([words] * 2, kind="word", vocab_size=20), TextPipeline(unicode="none"))
    else:
        made = writer() if model == "writer" else reader(None)
    ids = _repeated(made, 0).text.ids
    begin = {"writer": 0, "reader": 1, "pair": 1}[model]
    if model == "reader":
        assert set(ids[:, 0].tolist()) == {2} and set(ids[:, -1].tolist()) == {3}
    elif model == "pair":
        assert set(ids[:, 0].tolist()) == {made.config.bos_id}
    length = (ids.shape[1] - begin - (model == "reader")) // 2
    assert torch.equal(ids[:, begin : begin + length], ids[:, begin + length : begin + 2 * length]) and length >= 5
    assert all(made.tokenizer.decode([token]).strip() for token in ids[0, begin : begin + length].tolist())
    assert head_tags(made).scores["induction"].shape[0] == 2
    if model == "pair":
        assert head_tags(made, attention="encoder.self_attention").scores["induction"].shape == (1, 2)


def averages(pattern: Tensor, lengths: list[int]) -> list[float]:
    """Entropy, distance and largest weight of one head [n, T, T], from their definitions."""
    rows = [(q, pattern[text, q].tolist()) for text, length in enumerate(lengths) for q in range(length)]
    entropies = [-sum(p * math.log(p) for p in row if p > 0) for _, row in rows]
    distances = [sum(p * abs(q - k) for k, p in enumerate(row)) for q, row in rows]
    largest = [max(row) for _, row in rows]
    return [sum(each) / len(rows) for each in (entropies, distances, largest)]


@pytest.mark.parametrize("name", ["GPT", "Llama", "BERT", "paper"])
def test_statistics_equal_plain_loops(name: str) -> None:
    network, (rows, targets) = network_of(name), ids_of(name)
    prefix = "decoder." if both(name) else ""
    found = attention_statistics(network, rows, target=targets)
    expression = f"{prefix}self_attention.pattern[2] @ *<-*"
    kept = trace(network, rows, expression, target=targets)
    lengths = [len(row) for row in targets or rows]
    wanted = averages(kept[expression][:, 3], lengths)
    assert found.distance is not None
    numbers = [found.entropy[2, 3], found.distance[2, 3], found.largest[2, 3]]
    assert [float(each) for each in numbers] == pytest.approx(wanted, abs=1e-5)
    assert found.queries == sum(lengths) and found.entropy.shape == (3, 4)
    of_trace = attention_statistics(kept)
    assert of_trace.layers == (2,) and torch.allclose(of_trace.entropy[0], found.entropy[2], atol=1e-6)
    assert f"{prefix}self_attention[2].head[3]" in of_trace.table()
    json.dumps(found.to_json())


def test_statistics_of_some_heads_at_the_end_and_of_another_text() -> None:
    network, (rows, targets) = network_of("paper"), ids_of("paper")
    expression = "decoder.cross_attention.pattern[1].head[0,2] @ end<-*"
    kept = trace(network, rows, expression, target=targets)
    found = attention_statistics(kept)
    assert found.distance is None and found.heads == (0, 2) and found.queries == 3 and found.layers == (1,)
    pattern = kept[expression]
    wanted = -(pattern * pattern.clamp_min(1e-30).log()).sum(-1).mean(0)
    torch.testing.assert_close(found.entropy[0].float(), wanted, atol=1e-5, rtol=1e-5)
    assert "–" in found.table() and found.to_json()["distance"] is None
    both_kept = trace(network, rows, expression, "decoder.self_attention.pattern[*] @ *<-*", target=targets)
    with pytest.raises(InputError, match="say which 'attention'"):
        attention_statistics(both_kept)
    assert attention_statistics(both_kept, attention="decoder.cross_attention").heads == (0, 2)


def test_what_cannot_be_read_is_refused() -> None:
    network, rows = network_of("GPT"), ids_of("GPT")[0]
    recurrent = Recurrent(RecurrentConfig(20, d_model=8)).eval()
    cases: list[tuple[str, Any]] = [
        ("has no self_attention", lambda: head_tags(recurrent)),
        ("has no self_attention or cross_attention in layers", lambda: attention_statistics(recurrent, rows)),
        ("Did you mean 'self_attention'", lambda: head_tags(network, attention="self_atention")),
        ("'threshold' must be", lambda: head_tags(network, threshold=1.0)),
        ("want texts", lambda: attention_statistics(network)),
        ("there is no tag 'inductive'. Did you mean 'induction'", lambda: head_tags(network).heads("inductive")),
        ("none fit", lambda: attention_statistics(trace(network, rows, "self_attention.pattern[0] @ end<-0"))),
    ]
    for message, call in cases:
        with pytest.raises(InputError, match=message):
            call()
