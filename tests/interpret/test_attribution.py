"""Direct logit attribution: parts sum to the logit, equal a plain computation, and are what ablating takes away."""

from __future__ import annotations

import copy
import json
import math
from typing import Any

import pytest
import torch
from interpret.small_networks import CONFIGS, DECODING, both, ids_of, last_logits, network_of
from tasks.small_writers import writer
from torch import Tensor

from glassformer.errors import InputError
from glassformer.interpret.attribution import Attribution, attribute
from glassformer.interpret.edits import ablate, patch
from glassformer.interpret.facts import Fact, Facts
from glassformer.interpret.gate import answer_ids
from glassformer.interpret.running import run_edited
from glassformer.interpret.trace import trace
from glassformer.layers.quantized import quantized
from glassformer.models.config import RecurrentConfig
from glassformer.models.recurrent import Recurrent

ANSWERS, OTHERS = [4, 17, 39], [8, 5, 20]
EVERY_WAY: list[dict[str, Any]] = [
    {"by": "layer"},
    {"by": "component"},
    {"by": "head"},
    {"by": "head", "source": "token"},
    {"by": "neuron", "neurons": 7},
]
every_network = pytest.mark.parametrize("name", DECODING)


def attributed(name: str, **choices: Any) -> Attribution:
    rows, targets = ids_of(name)
    return attribute(network_of(name), rows, target=targets, **{"answers": ANSWERS, **choices})


@every_network
@pytest.mark.parametrize("way", EVERY_WAY, ids=lambda way: "-".join(map(str, way.values())))
def test_parts_sum_to_the_models_logit(name: str, way: dict[str, Any]) -> None:
    logits = last_logits(name).double()
    found = attributed(name, **way).check()
    wanted = logits.gather(1, torch.tensor(ANSWERS)[:, None])[:, 0]
    torch.testing.assert_close(found.values.sum(1), wanted, atol=1e-4, rtol=0)
    assert len(found.names) == len(set(found.names)) == found.values.shape[1]
    against = attributed(name, metric="logit_diff", others=OTHERS, batch_size=2, **way).check()
    wanted = wanted - logits.gather(1, torch.tensor(OTHERS)[:, None])[:, 0]
    torch.testing.assert_close(against.values.sum(1), wanted, atol=1e-4, rtol=0)


# --- Against a plain computation --------------------------------------------------------------------------------------


def normed(x: Tensor, norm: Any) -> tuple[Tensor, Tensor]:
    """The norm of each row, and its 1 / scale, from the definitions."""
    centred = x - x.mean(-1, keepdim=True) if hasattr(norm, "bias") else x
    size = (centred.pow(2).mean(-1, keepdim=True) + norm.eps).sqrt()
    return centred / size * norm.weight + (norm.bias if hasattr(norm, "bias") else 0), 1 / size


def turned(x: Tensor, place: int) -> Tensor:
    """One head's query or key at a position, each pair of coordinates by its own angle."""
    half = len(x) // 2
    result = x.clone()
    for i in range(half):
        angle = place * 10000 ** (-2 * i / len(x))
        result[i] = x[i] * math.cos(angle) - x[i + half] * math.sin(angle)
        result[i + half] = x[i + half] * math.cos(angle) + x[i] * math.sin(angle)
    return result


def looked_up(attention: Any, x: Tensor, context: Tensor, causal: bool, rotary: bool) -> Tensor:
    """What each head brings to each position from each token of the context, [H, Q, K, D], without a bias."""
    query, key, value = attention.to_query(x), attention.to_key(context), attention.to_value(context)
    width, shared = attention.d_head, attention.n_heads // attention.n_kv_heads
    brought = torch.zeros(attention.n_heads, len(x), len(context), attention.to_output.out_features)
    for head in range(attention.n_heads):
        own, group = slice(head * width, (head + 1) * width), head // shared
        theirs = slice(group * width, (group + 1) * width)
        q, k = query[:, own], key[:, theirs]
        if rotary:
            q, k = (torch.stack([turned(row, place) for place, row in enumerate(each)]) for each in (q, k))
        scores = q @ k.T / (1.0 if attention.scale else math.sqrt(width))
        if causal:
            scores = scores.masked_fill(torch.ones_like(scores).triu(1).bool(), float("-inf"))
        moved = value[:, theirs] @ attention.to_output.weight[:, own].T
        brought[head] = scores.softmax(-1)[:, :, None] * moved[None]
    return brought


@torch.no_grad()
def plain(name: str, ids: list[int], target: list[int] | None, answer: int) -> dict[str, float]:
    """The parts by heads and tokens of a pre-norm network's logit, from vectors of width D and nothing else of ours."""
    network, config = network_of(name), CONFIGS[name]
    rotary, source = type(config.positions).__name__ == "Rotary", None
    if target is not None:
        source = run(network.encoder, ids, None, False, rotary, config)[0]
    stack, read, prefix = (network.stack, ids, "") if target is None else (network.decoder, target, "decoder.")
    last, vectors = run(stack, read, source, True, rotary, config)
    row, norm = network.head.weight[answer], stack.final_norm
    _, scale = normed(last[-1], norm)
    layered = hasattr(norm, "bias")
    parts = {}
    for part, vector in vectors.items():
        centred = vector - vector.mean() if layered else vector
        parts[prefix + part] = float((centred * scale * norm.weight) @ row)
    return parts | ({f"{prefix}final_norm.bias": float(norm.bias @ row)} if layered else {})


def run(
    stack: Any, ids: list[int], source: Tensor | None, causal: bool, rotary: bool, config: Any
) -> tuple[Tensor, dict[str, Tensor]]:
    """The last residual of a decoder (of an encoder its normed states), and what was written into the last position."""
    embedding = stack.embedding
    x = embedding.token.weight[torch.tensor(ids)] * math.sqrt(config.d_model)
    vectors = {"embedding.token": x[-1]}
    if embedding.position is not None:
        vectors["embedding.position"] = embedding.position[len(ids) - 1]
        x = x + embedding.position[: len(ids)]
    for layer, block in enumerate(stack.blocks):
        ears = [("self_attention", block.self_attention, None, "norm_1")]
        if source is not None:
            ears.append(("cross_attention", block.cross_attention, source, "norm_2"))
        for name, attention, context, norm in ears:
            h, _ = normed(x, getattr(block, norm))
            alone = context is None
            brought = looked_up(attention, h, h if alone else context, alone and causal, alone and rotary)
            for head in range(attention.n_heads):
                for key in range(brought.shape[2]):
                    vectors[f"{name}[{layer}].head[{head}]<-{key}"] = brought[head, -1, key]
            x = x + brought.sum((0, 2))
            if attention.to_output.bias is not None:
                vectors[f"{name}[{layer}].bias"] = attention.to_output.bias
                x = x + attention.to_output.bias
        h, _ = normed(x, block.norm_2 if source is None else block.norm_3)
        feed = block.feed_forward
        if feed.gate is None:
            hidden = torch.relu(feed.up(h))
        else:
            gate = feed.gate(h)
            hidden = gate * torch.sigmoid(gate) * feed.up(h)
        fed = hidden @ feed.down.weight.T + (feed.down.bias if feed.down.bias is not None else 0)
        vectors[f"feed_forward[{layer}]"] = fed[-1]
        x = x + fed
    return (x if causal else normed(x, stack.final_norm)[0]), vectors


@pytest.mark.parametrize("name", ["GPT", "Llama", "pre-norm"])
def test_heads_and_tokens_equal_a_plain_computation(name: str) -> None:
    rows, targets = ids_of(name)
    by_token, by_head = attributed(name, by="head", source="token").parts, attributed(name, by="head").parts
    for text, row in enumerate(rows):
        target = None if targets is None else targets[text]
        wanted = plain(name, row, target, ANSWERS[text])
        assert sum(wanted.values()) == pytest.approx(float(last_logits(name)[text, ANSWERS[text]]), abs=1e-4)
        for part, value in by_token.items():
            assert float(value[text]) == pytest.approx(wanted.get(part, 0.0), abs=1e-5), part  # 0 beyond the text
        assert set(wanted) <= set(by_token)
        for part, value in by_head.items():
            of_head = sum(number for known, number in wanted.items() if known.split("<-")[0] == part)
            assert float(value[text]) == pytest.approx(of_head, abs=1e-5), part


# --- Against ablation -------------------------------------------------------------------------------------------------


def taken_away(name: str, site: str, later: list[str]) -> Tensor:
    """By how much the answer's logits fall if `site` is zero at the end while the scales of all norms, and all other
    layers' outputs, stay as they were: the direct effect by its definition."""
    network, (rows, targets) = network_of(name), ids_of(name)
    config, prefix = CONFIGS[name], "decoder." if both(name) else ""
    norms = ["norm_1", "norm_2", "norm_3"][: 3 if both(name) else 2]
    scales = [f"{norm}.scale[*]" for norm in norms] + (["final_norm.scale"] if config.norm_first else [])
    held = [f"{prefix}{each} @ end" for each in (*(scales if not config.norm_first else scales[-1:]), *later)]
    kept = trace(network, rows, *held, target=targets)
    edits = [ablate(f"{prefix}{site} @ end", "zero"), *(patch(each, kept) for each in held)]
    with torch.no_grad():
        logits = run_edited(network, rows, targets, edits).logits
    ends = torch.tensor([len(row) - 1 for row in (targets or rows)])
    after = logits[torch.arange(3), ends].gather(1, torch.tensor(ANSWERS)[:, None])[:, 0]
    return last_logits(name).gather(1, torch.tensor(ANSWERS)[:, None])[:, 0] - after


@pytest.mark.parametrize("name", ["GPT", "Llama", "T5", "pre-norm", "paper", "paper's decoder"])
@pytest.mark.parametrize("layer", [0, 2])
def test_a_parts_effect_is_what_ablating_it_takes_away(name: str, layer: int) -> None:
    sublayers = ["self_attention", *(["cross_attention"] * both(name)), "feed_forward"]
    places = [(own, each) for each in range(3) for own in sublayers]
    prefix = "decoder." if both(name) else ""
    heads = attributed(name, by="head").parts
    for attention in sublayers[:-1]:
        later = [f"{own}.output[{each}]" for own, each in places[places.index((attention, layer)) + 1 :]]
        wanted = taken_away(name, f"{attention}.mixed[{layer}].head[1]", later)
        found = heads[f"{prefix}{attention}[{layer}].head[1]"]
        torch.testing.assert_close(found.float(), wanted, atol=1e-4, rtol=1e-3)
        assert float(found.abs().max()) > 1e-3
    later = [f"{own}.output[{each}]" for own, each in places[places.index(("feed_forward", layer)) + 1 :]]
    neurons = attributed(name, by="neuron", neurons=3 * 48)
    together = taken_away(name, f"feed_forward.hidden[{layer}]", later)
    every = [value for part, value in neurons.parts.items() if f"feed_forward[{layer}].neuron" in part]
    torch.testing.assert_close(torch.stack(every).sum(0).float(), together, atol=1e-4, rtol=1e-3)


# --- What can be asked ------------------------------------------------------------------------------------------------


def test_parts_are_coarser_or_finer_by_choice() -> None:
    name = "pre-norm"
    layer, component, head, token, neuron = (attributed(name, **way) for way in EVERY_WAY)
    assert [part for part in layer.names if "layer" in part] == [f"decoder.layer[{each}]" for each in range(3)]
    for each in range(3):
        of_layer = [value for part, value in component.parts.items() if f"[{each}]" in part]
        torch.testing.assert_close(layer.parts[f"decoder.layer[{each}]"], torch.stack(of_layer).sum(0))
    cross = "decoder.cross_attention"
    bias = head.groups[f"{cross}.bias"]
    torch.testing.assert_close(component.groups[cross], head.heads(cross).sum(2) + bias, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(token.heads(cross), head.heads(cross), atol=1e-5, rtol=1e-5)
    assert token.groups[cross].shape == (3, 3, 4, 7) and token.groups["decoder.self_attention"].shape == (3, 3, 4, 6)
    first = token.heads(cross, source="0")
    torch.testing.assert_close(first, token.groups[cross][..., 0])
    parts = [first, token.heads(cross, source="1:")]
    torch.testing.assert_close(torch.stack(parts).sum(0), token.heads(cross))
    every = attributed(name, by="neuron", neurons=3 * 48)
    order = sorted(every.parts.items(), key=lambda item: -float(item[1].abs().mean()) * (".neuron[" in item[0]))
    assert [part for part in neuron.names if ".neuron[" in part] == [part for part, _ in order[:7]]
    assert float(every.groups["decoder.feed_forward.rest"].abs().max()) == 0


def test_how_many_heads_it_takes() -> None:
    found = attributed("GPT", by="head")
    effects = sorted(found.heads().mean(0).flatten().clamp_min(0).tolist(), reverse=True)
    for share in (0.1, 0.5, 0.8, 1.0):
        wanted = next(k for k in range(1, 13) if sum(effects[:k]) >= share * sum(effects) - 1e-12)
        assert found.heads_for(share) == wanted
    flat = Attribution("head", found.inputs, {"self_attention": torch.zeros(3, 3, 4)}, torch.zeros(3), "")
    assert flat.heads_for() == 0
    even = Attribution("head", found.inputs, {"self_attention": torch.ones(3, 2, 5)}, torch.zeros(3), "")
    assert [even.heads_for(share) for share in (0.1, 0.11, 0.8, 1)] == [1, 2, 8, 10]


def test_shares_tables_and_files() -> None:
    found = attributed("GPT", by="component")
    attention = sum(value for part, value in found.parts.items() if part.startswith("self_attention"))
    assert found.share("self_attention") == pytest.approx(float(attention.sum() / found.values.sum()))  # type: ignore[union-attr]
    whole = [found.share(name) for name in ("embedding", "self_attention", "feed_forward", "final_norm")]
    assert sum(whole) == pytest.approx(1)
    largest, mean = found.top(1)[0]
    assert abs(mean) == pytest.approx(float(found.values.mean(0).abs().max()))
    lines = found.table(3).splitlines()
    assert "frozen: attention patterns, final_norm.scale; n = 3" in lines[0] and lines[2].startswith(largest)
    assert lines[-1].split()[0] == "sum" and "6 others" in lines[-2] and "[" in lines[2]
    assert float(lines[-1].split()[1]) == pytest.approx(float(found.logits.mean()), abs=2e-3)
    stored = json.loads(json.dumps(found.to_json()))
    assert stored["parts"][largest] == mean and len(stored["logits"]) == 3
    for name in ("norm_1", "norm_2", "norm_3"):
        assert f"decoder.{name}.scale" in attributed("paper").note
    assert "embedding.norm.scale" in attributed("biased").note


def test_facts_bring_answers_and_others() -> None:
    model = writer()
    rows = [("a man", "rides"), ("two women", "eat"), ("the bike", "road")]
    facts = Facts(tuple(Fact(s, s, "r", f"{s} in blue shirt", (a,)) for s, a in rows))
    found = attribute(model, facts, by="head", source="token").check()
    again = attribute(model, facts.prompts, by="head", source="token", answers=answer_ids(model, facts))
    torch.testing.assert_close(found.values, again.values)
    subject = found.heads(source="subject")
    assert subject.shape == (3, 2, 4) and 0 < float(subject.abs().sum()) < float(
        found.groups["self_attention"].abs().sum()
    )
    pair = attribute(model, facts, metric="logit_diff").check()
    other = attribute(model, facts, metric="logit_diff", others=facts.swapped().answers)
    torch.testing.assert_close(pair.values, other.values)


def test_a_network_that_computes_something_else_is_noticed() -> None:
    rows, _ = ids_of("GPT")
    whole = quantized(network_of("GPT"), 8)
    with pytest.raises(InputError, match=r"those of text \d miss it by .* in fp32 and in evaluation mode"):
        attribute(whole, rows, by="head", answers=ANSWERS).check(1e-5)
    broken = copy.copy(attributed("GPT"))
    object.__setattr__(broken, "logits", broken.logits + torch.tensor([0.0, 0.002, 0.0]))
    with pytest.raises(InputError, match="text 2 miss it by 0.002"):
        broken.check()
    assert broken.check(0.01) is broken
    object.__setattr__(broken, "logits", broken.logits * float("nan"))
    with pytest.raises(InputError, match="miss it by nan"):
        broken.check()


def test_what_cannot_be_attributed_is_refused() -> None:
    network, (rows, _) = network_of("GPT"), ids_of("GPT")
    cases: list[tuple[str, Any, dict[str, Any]]] = [
        ("Did you mean 'head'", network, {"by": "heads"}),
        ("say by='head', got 'layer'", network, {"by": "layer", "source": "token"}),
        ("'source' must be 'token'", network, {"by": "head", "source": "tokens"}),
        ("only 'logit' and 'logit_diff' are sums", network, {"metric": "logprob"}),
        ("give 'others', or facts", network, {"metric": "logit_diff"}),
        ("at least 1, got 0", network, {"neurons": 0}),
        ("3 texts and 1 answers", network, {"answers": [1]}),
        ("dense layer with an activation before the words", network_of("BERT"), {}),
        ("a Recurrent has none", Recurrent(RecurrentConfig(20, d_model=8)), {}),
    ]
    for message, model, choices in cases:
        with pytest.raises(InputError, match=message):
            attribute(model, rows, **{"answers": ANSWERS, **choices})
    with pytest.raises(InputError, match="only facts bring their own"):
        attribute(network, rows)
    component, pair = attributed("GPT"), attributed("pre-norm", by="head")
    for call, message in (
        (component.heads, "attribute by 'head' to see heads"),
        (component.heads_for, "attribute by 'head' to see heads"),
        (lambda: component.share("self_atention"), "Did you mean 'self_attention'"),
        (pair.heads, "decoder.self_attention or decoder.cross_attention"),
        (lambda: pair.heads("decoder.cross_atention"), "Did you mean 'decoder.cross_attention'"),
        (lambda: pair.heads("decoder.self_attention", source="end"), "attribute with source='token'"),
        (lambda: pair.heads_for(0), "'share' must be above 0"),
    ):
        with pytest.raises(InputError, match=message):
            call()
