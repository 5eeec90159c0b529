"""The logit lens, plain and tuned: the last layer is the model, ranks by hand, translators that learn."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from interpret.small_networks import CONFIGS, both, ids_of, last_logits, network_of
from tasks.small_models import model_of
from tasks.small_writers import reader, writer
from torch.nn import functional as F

from glassformer.errors import InputError
from glassformer.interpret.facts import Fact, Facts
from glassformer.interpret.gate import answer_ids
from glassformer.interpret.inputs import prepare
from glassformer.interpret.lens import lens
from glassformer.interpret.trace import trace
from glassformer.interpret.tuned_lens import TunedLens, tuned_lens
from glassformer.interpret.words import first_tokens
from glassformer.layers.quantized import quantized
from glassformer.models.config import Classification, RecurrentConfig
from glassformer.models.recurrent import Recurrent
from glassformer.text.pipeline import TextPipeline
from glassformer.text.tokenizer import Tokenizer

every_network = pytest.mark.parametrize("name", list(CONFIGS))


def traced(name: str, expression: str = "residual_post[*] @ end") -> Any:
    rows, targets = ids_of(name)
    prefix = "decoder." if both(name) else ""
    return trace(network_of(name), rows, prefix + expression, target=targets)


@every_network
def test_the_last_layer_is_what_the_model_says(name: str) -> None:
    read = lens(traced(name))
    assert read.places[-1].endswith("residual_post[2]") and read.logits.shape == (3, 3, 40)
    torch.testing.assert_close(read.logits[-1], last_logits(name), atol=1e-5, rtol=1e-4)
    assert not torch.allclose(read.logits[0], read.logits[-1], atol=0.1)


def test_earlier_layers_by_hand() -> None:
    """Final norm and unembedding of a state, written out."""
    network, kept = network_of("GPT"), traced("GPT")
    state, norm = kept["residual_post[0] @ end"], network.stack.final_norm
    centred = state - state.mean(-1, keepdim=True)
    scale = (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    wanted = (centred / scale * norm.weight + norm.bias) @ network.stack.embedding.token.weight.T
    torch.testing.assert_close(lens(kept).logits[0], wanted, atol=1e-5, rtol=1e-4)


@every_network
def test_ranks_probabilities_and_entropies_by_brute_force(name: str) -> None:
    read, answers = lens(traced(name)), [4, 17, 39]
    logits = read.logits.double()
    ranks, probabilities, entropies = read.rank(answers), read.probability(answers), read.entropy()
    best = read.top(3)
    for layer in range(3):
        for text, answer in enumerate(answers):
            row = logits[layer, text].tolist()
            assert int(ranks[layer, text]) == sum(value > row[answer] for value in row)
            shares = torch.tensor(row, dtype=torch.float64).softmax(0)
            assert float(probabilities[layer, text]) == pytest.approx(float(shares[answer]), rel=1e-4)
            assert float(entropies[layer, text]) == pytest.approx(-float((shares * shares.log()).sum()), rel=1e-4)
            order = sorted(range(40), key=lambda token: -row[token])[:3]
            assert best.ids[layer, text].tolist() == order
            assert best.tokens[layer][text] == [str(token) for token in order]
    assert torch.equal(read.rank(17), read.rank([17] * 3)) and torch.equal(
        read.rank(17), read.rank(torch.tensor([17] * 3))
    )


def test_all_positions() -> None:
    read, at_end = lens(traced("GPT", "residual_post[*] @ *")), lens(traced("GPT"))
    assert read.logits.shape == (3, 3, 7, 40) and read.real.sum(1).tolist() == [5, 7, 3]
    answers = [4, 17, 39]
    for text, last in enumerate((4, 6, 2)):
        torch.testing.assert_close(read.logits[:, text, last], at_end.logits[:, text], atol=1e-5, rtol=1e-4)
        assert torch.equal(read.rank(answers)[:, text, last], at_end.rank(answers)[:, text])
    assert read.top(2).ids.shape == (3, 3, 7, 2) and read.entropy().shape == (3, 3, 7)
    assert "position 4" in read.table() and "position 5" not in read.table()
    assert len(read.table(answers).splitlines()) == 4


def test_few_states_are_read_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    read = lens(traced("Llama", "residual_post[*] @ *"))
    whole = read.logits, read.rank([4, 17, 39])
    monkeypatch.setattr("glassformer.interpret.lens.TOGETHER", 4)
    torch.testing.assert_close(read.logits, whole[0], atol=1e-5, rtol=1e-4)
    assert torch.equal(read.rank([4, 17, 39]), whole[1])


def facts() -> Facts:
    rows = [("a man", "rides"), ("two women", "eat"), ("the bike", "road")]
    return Facts(tuple(Fact(s, s, "r", f"{s} in blue shirt", (a,)) for s, a in rows))


def test_answers_are_words_as_the_model_goes_on() -> None:
    model, known = writer(), facts()
    kept = trace(model, known, "residual_post[*] @ end")
    wanted = answer_ids(model, known)
    assert (
        first_tokens(model, kept.inputs).tolist() == wanted == first_tokens(model, kept.inputs, known.answers).tolist()
    )
    assert wanted != [model.tokenizer.encode(answer)[0] for answer in known.answers]  # a space belongs to them
    read = lens(kept)
    assert torch.equal(read.rank(known.answers), read.rank(wanted)) and torch.equal(read.rank(), read.rank(wanted))
    single = trace(model, known[0], "residual_post[1] @ end")
    assert first_tokens(model, single.inputs).tolist() == wanted[:1]
    table = read.table()
    assert table.splitlines()[0].split() == ["layer", "text", "1", "text", "2", "text", "3"]
    assert "median rank" in read.table(known.answers)


def test_answers_of_two_texts_and_of_a_mask() -> None:
    words = "a man in blue shirt rides the bike on road"
    pair = model_of(Tokenizer.train([words] * 2, kind="word", vocab_size=20), TextPipeline(unicode="none"))
    inputs = prepare(pair, ["a man", "the bike"], ["blue", "a"])
    assert first_tokens(pair, inputs, ["shirt", "road"]).tolist() == [
        pair.tokenizer.id_of(w) for w in ("shirt", "road")
    ]
    masked = reader(None)
    inputs = prepare(masked, ["a man", "the bike"])
    assert first_tokens(masked, inputs, ["dogs", "man"]).tolist() == [
        masked.tokenizer.id_of("dog" if "dog" in masked.tokenizer.tokens(masked.tokenizer.encode("dogs")) else "dogs"),
        masked.tokenizer.id_of("man"),
    ]


def test_what_cannot_be_read_is_refused() -> None:
    kept = traced("GPT")
    read = lens(kept)
    cases: list[tuple[str, Any]] = [
        ("3 texts and 2 answers", lambda: read.rank([1, 2])),
        ("give the answers as token ids", lambda: read.rank(["a", "b", "c"])),
        ("from 0 to 39; got 40", lambda: read.rank(40)),
        ("only facts bring their own", lambda: read.rank()),
        ("'k' must be from 1 to 40", lambda: read.top(0)),
        (
            r"such as 'residual_post\[\*\] @ end'; the trace holds 'logits @ end'",
            lambda: lens(traced("GPT", "logits @ end")),
        ),
        ("has no 'logits' of that kind", lambda: lens(kept, at="logits")),
    ]
    for message, call in cases:
        with pytest.raises(InputError, match=message):
            call()
    two = trace(network_of("GPT"), ids_of("GPT")[0], "residual_post[0] @ end", "residual_pre[*] @ 0")
    with pytest.raises(InputError, match="fit: say which by 'at'"):
        lens(two)
    assert lens(two, at="residual_pre[*] @ 0").logits.shape == (3, 3, 40)
    labels = reader(Classification(("x", "y")))
    with pytest.raises(InputError, match="a head that says words; the model's is for Classification"):
        lens(trace(labels, "a man", "residual_post[0] @ end"))
    recurrent = Recurrent(RecurrentConfig(20, d_model=8)).eval()
    with pytest.raises(InputError, match="a Recurrent has none"):
        lens(trace(recurrent, [5, 6], "logits @ end", target=[1, 5]))
    with pytest.raises(InputError, match=r"such as 'decoder.residual_post\[\*\] @ end'"):
        rows, targets = ids_of("paper")
        lens(trace(network_of("paper"), rows, "encoder.residual_post[0] @ end", target=targets))


TEXTS = torch.randint(4, 40, (40, 8), generator=torch.Generator().manual_seed(5)).tolist()


def test_a_tuned_lens_is_nearer_to_the_model_on_texts_it_has_not_seen(tmp_path: Path) -> None:
    network = network_of("GPT")
    tuned = tuned_lens(network, TEXTS, steps=150, rate=1e-2)
    fit = tuned.report()
    assert (fit.layers, fit.trained, fit.held_out) == ((0, 1, 2), 256, 64)
    assert all(better < 0.8 * plain for better, plain in zip(fit.tuned[:2], fit.plain[:2], strict=True))
    assert fit.plain[2] < 1e-6 and fit.tuned[2] == fit.plain[2]
    assert torch.equal(tuned.weights[2], torch.eye(32)) and not tuned.biases[2].any()
    assert "logit lens  tuned lens" in str(fit) and "64 positions" in str(fit)
    json.dumps(fit.to_json())
    held = TEXTS_HELD()
    plain_lens, tuned_one = (lens(trace(network, held, "residual_post[*] @ *"), tuned=each) for each in (None, tuned))
    final = plain_lens.logits[-1].log_softmax(-1)
    for read, wanted in ((plain_lens, fit.plain), (tuned_one, fit.tuned)):
        for layer in range(3):
            found = F.kl_div(read.logits[layer].log_softmax(-1), final, log_target=True, reduction="sum") / 64
            assert float(found) == pytest.approx(wanted[layer], abs=1e-4)
    path = tuned.save(tmp_path / "lens.0")
    assert path.name == "lens.0.json" and (tmp_path / "lens.0.safetensors").is_file()
    again = TunedLens.load(path)
    assert again.fit == fit and again.layers == tuned.layers and torch.equal(again.weights, tuned.weights)
    path.write_text(path.read_text().replace('"seed"', '"sed"'))
    with pytest.raises(InputError, match="is damaged"):
        TunedLens.load(path)
    with pytest.raises(InputError, match="the file is missing"):
        TunedLens.load(tmp_path / "nothing")


def TEXTS_HELD() -> list[list[int]]:
    """The fifth that the seed 0 holds out."""
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0))
    return [TEXTS[row] for row in sorted(order[:8].tolist())]


def test_equal_arguments_give_equal_translators_and_layers_do_not_depend_on_each_other() -> None:
    network = network_of("GPT")
    first, second, other = (
        tuned_lens(network, TEXTS[:10], layers, steps=5, seed=seed) for layers, seed in (("*", 0), ("1", 0), ([1], 1))
    )
    assert torch.equal(first.weights[1], second.weights[0]) and torch.equal(first.biases[1], second.biases[0])
    assert not torch.equal(second.weights, other.weights)
    assert not any(parameter.grad is not None for parameter in network.parameters())


@pytest.mark.parametrize("name", ["Llama", "paper", "BERT"])
def test_every_family_has_a_tuned_lens(name: str) -> None:
    tuned = tuned_lens(network_of(name), TEXTS, 1, target=TEXTS if both(name) else None, steps=60, rate=3e-3)
    fit = tuned.report()
    assert fit.tuned[0] < fit.plain[0]
    read = lens(traced(name, "residual_post[1] @ end"), tuned=tuned)
    assert read.logits.shape == (1, 3, 40)
    with pytest.raises(InputError, match=r"no translator for '(decoder.)?residual_post\[0\]'"):
        lens(traced(name, "residual_post[0] @ end"), tuned=tuned)
    with pytest.raises(InputError, match=r"no translator for '(decoder.)?residual_pre\[1\]'"):
        lens(traced(name, "residual_pre[1] @ end"), tuned=tuned)


def test_what_cannot_be_tuned_is_refused() -> None:
    network = network_of("GPT")
    with pytest.raises(InputError, match="needs two texts at least"):
        tuned_lens(network, TEXTS[:1])
    with pytest.raises(InputError, match="there are 3 layers, numbered from 0; got 3"):
        tuned_lens(network, TEXTS, 3)
    with pytest.raises(InputError, match="at least 1"):
        tuned_lens(network, TEXTS, steps=0)
    with pytest.raises(InputError, match="few bits here: load it without a precision"):
        tuned_lens(quantized(network, 8), TEXTS)
    narrow = TunedLens("residual_post", (0,), torch.eye(8)[None], torch.zeros(1, 8), tuned_lens(network, TEXTS, 2).fit)
    with pytest.raises(InputError, match="for states of width 8, the model's have 32"):
        lens(traced("GPT", "residual_post[0] @ end"), tuned=narrow)


def test_the_first_step_by_hand() -> None:
    """Adam's first step goes by the rate against the sign of each gradient, in units of each feature's spread."""
    network, rate = network_of("GPT"), 0.01
    tuned = tuned_lens(network, TEXTS, 1, steps=1, batch=16, rate=rate)
    learned = [row for row in range(40) if TEXTS[row] not in TEXTS_HELD()]
    kept = trace(network, [TEXTS[row] for row in learned], "residual_post[1:] @ *")
    x, final = (kept[f"residual_post[{layer}] @ *"].flatten(0, 1) for layer in (1, 2))
    standard = (x - x.mean(0)) / x.std(0, correction=0)
    rows = torch.randint(len(x), (16,), generator=torch.Generator().manual_seed(0))
    turn, shift = torch.zeros(32, 32, requires_grad=True), torch.zeros(32, requires_grad=True)

    def said(states: torch.Tensor) -> torch.Tensor:
        return network.head(network.stack.final_norm(states)).softmax(-1)

    found = said(x[rows] + x.std(0, correction=0) * (standard[rows] @ turn.T + shift))
    wanted = said(final[rows]).detach()
    loss = (wanted * (wanted.log() - found.log())).sum(-1).mean()
    turn, shift = (-rate * slope.sign() for slope in torch.autograd.grad(loss, [turn, shift]))
    moved = x + x.std(0, correction=0) * (standard @ turn.T + shift)
    torch.testing.assert_close(tuned.translate("residual_post[1]", x), moved, atol=1e-3, rtol=1e-3)
