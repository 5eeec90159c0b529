"""Objectives against torch's cross-entropy on the networks' own logits: sums, parts, gradients, what is left out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import contracts
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from glassformer.layers.dropout import dropout_generator
from glassformer.layers.low_rank import LowRank, add_low_rank
from glassformer.models.config import Classification, Config, Learned, Relative, Rotary, Sinusoidal, Spans
from glassformer.models.decoder import Decoder
from glassformer.models.encoder import Encoder
from glassformer.models.encoder_decoder import EncoderDecoder
from glassformer.tasks import objectives
from glassformer.tasks.objectives import (
    IGNORE,
    Loss,
    causal_lm,
    classification,
    masked_lm,
    seq2seq,
    span_logits,
    spans,
)
from glassformer.text.examples import LabelledBatch, MaskedBatch, TextBatch
from glassformer.text.pairs import PairBatch
from glassformer.text.spans import SpanBatch

SHAPE: dict[str, Any] = {"vocab_size": 40, "d_model": 16, "n_heads": 4, "d_ff": 24, "max_length": 96, "dropout": 0.0}
SHAPE["init_std"] = 0.3
GPT = Config(n_encoder_layers=0, n_decoder_layers=2, positions=Learned(), norm_first=True, **SHAPE)
BERT = Config(n_encoder_layers=2, n_decoder_layers=0, positions=Learned(), n_segments=2, head_bias=True, **SHAPE)
PAPER = Config(n_encoder_layers=1, n_decoder_layers=1, **SHAPE)
LABELS = replace(BERT, head=Classification(("good", "bad", "neither")), pooler=True)
QUESTIONS = replace(BERT, head=Spans())
HEADS = {"tied": {}, "with a bias": {"head_bias": True}, "of its own": {"tie_head": False, "head_bias": True}}
every_head = pytest.mark.parametrize("head", HEADS.values(), ids=HEADS.keys())


def network_of(config: Config) -> Any:
    kind = EncoderDecoder if config.n_encoder_layers and config.n_decoder_layers else Encoder
    torch.manual_seed(0)
    return contracts.drawn((kind if config.n_encoder_layers else Decoder)(config)).train()


def padded(lengths: tuple[int, ...] = (9, 4, 6), seed: int = 0) -> tuple[Tensor, Tensor]:
    """Ids [B, T], padded on the right, and where they are real."""
    ids = contracts.random_ids(len(lengths), max(lengths), 40, seed)
    real = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    return ids.masked_fill(~real, 0), real


def texts() -> TextBatch:
    """Something is predicted at about half of the places."""
    ids, real = padded()
    target = contracts.random_ids(*ids.shape, 40, seed=1)
    chosen = torch.rand(ids.shape, generator=torch.Generator().manual_seed(2)) < 0.6
    return TextBatch(ids, target.where(real & chosen, torch.tensor(IGNORE)))


def masked() -> MaskedBatch:
    ids, real = padded()
    places = real.flatten().nonzero()[:, 0][::3]
    return MaskedBatch(ids, places, contracts.random_ids(1, len(places), 40, seed=1)[0])


def labelled() -> LabelledBatch:
    return LabelledBatch(padded()[0], torch.tensor([2, 0, 1]))


def questions() -> SpanBatch:
    """Contexts from the fourth token on; the last question has no answer there."""
    ids, real = padded()
    places = torch.arange(ids.shape[1])
    span = torch.tensor([[3, 6], [3, 3], [0, 0]])
    return SpanBatch(ids, (places > 2).long() * real, (places > 2) & real, span, torch.arange(3))


def pairs() -> PairBatch:
    (source, _), (target, real) = padded(), padded((5, 8, 3), seed=1)
    target[:, 0] = PAPER.bos_id
    return PairBatch(source, target, torch.arange(3), 19, int(real.sum()) - 3)


def check_is(loss: Loss, logits: Tensor, target: Tensor, smoothing: float, network: nn.Module) -> None:
    """Sums, parts and gradients are those of plain cross-entropy of `target` [M] given `logits` [M, V]."""
    expected = F.cross_entropy(logits, target, reduction="sum", label_smoothing=smoothing)
    torch.testing.assert_close(loss.total, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(loss.mean, expected / len(target), rtol=1e-4, atol=1e-4)
    assert loss.count == len(target) > 0 and isinstance(loss.count, int)
    assert loss.parts["correct"] == (logits.argmax(-1) == target).sum()
    if "nll" in loss.parts:
        torch.testing.assert_close(loss.parts["nll"], F.cross_entropy(logits, target, reduction="sum").detach())
    assert not any(part.requires_grad for part in loss.parts.values())
    check_same_gradients(loss.total, expected, network)


def check_same_gradients(ours: Tensor, expected: Tensor, network: nn.Module) -> None:
    found: list[dict[str, Tensor | None]] = []
    for total in (ours, expected):
        network.zero_grad(set_to_none=True)
        total.backward()
        found.append({name: parameter.grad for name, parameter in network.named_parameters()})
    for name, gradient in found[0].items():
        if gradient is None:
            assert found[1][name] is None, name
        else:
            torch.testing.assert_close(gradient, found[1][name], rtol=1e-3, atol=1e-4, msg=name)


MODES = [(True, 0.0), (True, 0.2), (False, 0.2)]
every_mode = pytest.mark.parametrize("training, smoothing", MODES, ids=["training", "smoothed", "evaluation"])


@every_head
@every_mode
def test_causal_lm(head: dict[str, Any], training: bool, smoothing: float) -> None:
    network, batch = network_of(replace(GPT, **head)).train(training), texts()
    real = batch.target != IGNORE
    loss = causal_lm(network, batch, smoothing)
    check_is(loss, network(batch.ids).logits[real], batch.target[real], smoothing if training else 0.0, network)


def test_causal_lm_where_something_is_predicted_everywhere() -> None:
    network = network_of(GPT)
    ids, target = contracts.random_ids(3, 7, 40), contracts.random_ids(3, 7, 40, seed=1)
    for full in (True, False):
        loss = causal_lm(network, TextBatch(ids, target, full=full))
        check_is(loss, network(ids).logits.flatten(0, 1), target.flatten(), 0.0, network)


@every_head
def test_masked_lm(head: dict[str, Any]) -> None:
    network, batch = network_of(replace(BERT, **{"head_bias": False, **head})), masked()
    logits = network(batch.ids).logits.flatten(0, 1)[batch.places]
    check_is(masked_lm(network, batch), logits, batch.target, 0.0, network)


@every_mode
@pytest.mark.parametrize("pooler", [True, False])
def test_classification(pooler: bool, training: bool, smoothing: float) -> None:
    network, batch = network_of(replace(LABELS, pooler=pooler)).train(training), labelled()
    loss = classification(network, batch, smoothing)
    check_is(loss, network(batch.ids).logits, batch.labels, smoothing if training else 0.0, network)


@every_head
@every_mode
def test_seq2seq(head: dict[str, Any], training: bool, smoothing: float) -> None:
    network, batch = network_of(replace(PAPER, **head)).train(training), pairs()
    wanted = batch.target[:, 1:]
    logits = network(batch.source, batch.target[:, :-1]).logits[wanted != 0]
    loss = seq2seq(network, batch, smoothing)
    check_is(loss, logits, wanted[wanted != 0], smoothing if training else 0.0, network)
    assert loss.count == batch.n_target_tokens


def test_spans() -> None:
    """Term by term: the ends are chosen among the allowed tokens and the first, which says that there is no answer."""
    network, batch = network_of(QUESTIONS), questions()
    loss = spans(network, batch)
    logits, expected, right = network(batch.ids, batch.segments).logits, torch.zeros(()), 0
    for row in range(3):
        among = [0, *batch.allowed[row].nonzero()[:, 0].tolist()]
        chosen = []
        for end in (0, 1):
            scores = logits[row, among, end]
            expected = expected - scores.log_softmax(-1)[among.index(int(batch.span[row, end]))] / 2
            chosen.append(among[int(scores.argmax())])
        right += chosen == batch.span[row].tolist()
    torch.testing.assert_close(loss.total, expected, rtol=1e-4, atol=1e-4)
    assert loss.count == 3 and loss.parts.keys() == {"correct"} and loss.parts["correct"] == right
    check_same_gradients(loss.total, expected, network)


def test_a_span_is_right_where_both_ends_are() -> None:
    network, batch = network_of(QUESTIONS).eval(), questions()
    best = span_logits(network(batch.ids, batch.segments).logits, batch.allowed).argmax(-1)
    other = torch.tensor([[0, 0], [1, 0], [0, 1]])
    for moved, right in ((other * 0, 3), (other, 1)):
        span = torch.where(moved.bool(), torch.where(best == 3, 0, 3), best)
        assert spans(network, replace(batch, span=span)).parts["correct"] == right


def test_span_scores_outside_of_what_is_allowed_do_not_count() -> None:
    logits = torch.randn(2, 5, 2, generator=torch.Generator().manual_seed(0))
    allowed = torch.tensor([[False, False, True, True, False], [False] * 5])
    before = allowed.clone()
    found = span_logits(logits, allowed)
    assert found.shape == (2, 2, 5) and torch.equal(allowed, before), "the batch is left as it was"
    finite = torch.tensor([[True, False, True, True, False], [True, False, False, False, False]])
    assert torch.equal(torch.isfinite(found), finite[:, None].expand(2, 2, 5))
    assert torch.equal(found.mT[finite], logits[finite])


KINDS = {
    "causal_lm": (GPT, causal_lm, texts),
    "masked_lm": (BERT, masked_lm, masked),
    "classification": (LABELS, classification, labelled),
    "spans": (QUESTIONS, spans, questions),
    "seq2seq": (replace(PAPER, head_bias=True), partial(seq2seq, label_smoothing=0.1), pairs),
}
every_kind = pytest.mark.parametrize("kind", KINDS)


def parts_of(kind: str) -> tuple[Any, Callable[..., Loss], Any]:
    config, objective, batch = KINDS[kind]
    return network_of(config), objective, batch()


@every_kind
def test_frozen_parts_get_no_gradient_and_the_rest_gets_the_same(kind: str) -> None:
    """The head alone, all but the head, and low-rank layers alone."""
    network, objective, batch = parts_of(kind)
    objective(network, batch).total.backward()
    whole = {name: parameter.grad for name, parameter in network.named_parameters()}
    above = {name for name in whole if name.partition(".")[0] in ("head", "pooler")}
    for trained in (above or {"stack.embedding.token.weight"}, whole.keys() - above):
        network.zero_grad(set_to_none=True)
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(name in trained)
        objective(network, batch).total.backward()
        for name, parameter in network.named_parameters():
            if name in trained:
                torch.testing.assert_close(parameter.grad, whole[name], rtol=1e-4, atol=1e-5, msg=name)
            else:
                assert parameter.grad is None, name
    network.zero_grad(set_to_none=True)
    names = add_low_rank(network, LowRank(2, 4.0))
    objective(network, batch).total.backward()
    found = {name for name, parameter in network.named_parameters() if parameter.grad is not None}
    assert found == set(names) and all("lora" in name for name in names)


@pytest.mark.parametrize("weights", [torch.float32, torch.bfloat16], ids=["autocast", "weights in bf16"])
@every_kind
def test_in_bfloat16_the_loss_is_near_and_fp32(kind: str, weights: torch.dtype) -> None:
    network, objective, batch = parts_of(kind)
    exact = objective(network, batch)
    with torch.autocast("cpu", torch.bfloat16, enabled=weights == torch.float32):
        loss = objective(network.to(weights), batch)
    assert loss.total.dtype == torch.float32
    torch.testing.assert_close(loss.total, exact.total, rtol=0.05, atol=0.2)
    loss.total.backward()
    assert all(p.grad is None or p.grad.dtype == weights for p in network.parameters())


@every_kind
def test_without_gradients_it_is_the_same(kind: str) -> None:
    network, objective, batch = parts_of(kind)
    with torch.no_grad():
        loss = objective(network, batch)
    assert not loss.total.requires_grad
    torch.testing.assert_close(loss.total, objective(network, batch).total.detach())


@pytest.mark.parametrize("kind", ["causal_lm", "masked_lm", "seq2seq"])
def test_nothing_is_computed_over_the_vocabulary_where_nothing_is_predicted(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, objective, batch = parts_of(kind)
    seen: list[int] = []
    real = objectives.linear_cross_entropy
    monkeypatch.setattr(
        objectives, "linear_cross_entropy", lambda hidden, *rest: (seen.append(len(hidden)), real(hidden, *rest))[1]
    )
    rows: list[int] = []
    if kind == "masked_lm":
        network.head.dense.register_forward_hook(lambda module, inputs, output: rows.append(len(inputs[0])))
    loss = objective(network, batch)
    assert seen == [loss.count] and rows == ([loss.count] if kind == "masked_lm" else [])
    assert 0 < loss.count < len(padded()[0].flatten())


@pytest.mark.parametrize("trained", ["stack", "head"])
@pytest.mark.parametrize("kind", ["causal_lm", "masked_lm"])
def test_where_nothing_is_predicted_there_is_nothing_to_learn(kind: str, trained: str) -> None:
    """A part of a batch may be such; the trainer calls `backward` all the same, whichever part of a network trains."""
    network, objective, batch = parts_of(kind)
    network = network_of(replace(network.config, tie_head=False))
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name.startswith(trained))
    if kind == "causal_lm":
        batch = replace(batch, target=torch.full_like(batch.target, IGNORE))
    else:
        batch = replace(batch, places=batch.places[:0], target=batch.target[:0])
    loss = objective(network, batch)
    assert (loss.total, loss.count, loss.parts) == (0, 0, {"nll": 0, "correct": 0})
    loss.total.backward()
    assert not any(parameter.grad is not None and parameter.grad.any() for parameter in network.parameters())


POSITIONS = {
    "learned": GPT,
    "sinusoidal": replace(GPT, positions=Sinusoidal()),
    "rotary": replace(GPT, positions=Rotary(100.0), n_kv_heads=2, norm="rms", gated=True, bias=False),
    "relative": replace(GPT, positions=Relative(8, 6), head_bias=True),
}


@pytest.mark.parametrize("config", POSITIONS.values(), ids=POSITIONS.keys())
@settings(deadline=None, max_examples=15)
@given(lengths=st.lists(st.integers(2, 20), min_size=1, max_size=4), seed=st.integers(0, 99))
def test_the_loss_of_a_packed_row_is_that_of_its_documents(config: Config, lengths: list[int], seed: int) -> None:
    """The last token of each predicts nothing: what comes next belongs to another."""
    network = network_of(config)
    ids = contracts.random_ids(1, sum(lengths), 40, seed)
    documents = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))[None]
    target = torch.cat((ids[:, 1:], ids[:, :1]), 1)
    target[:, torch.tensor(lengths).cumsum(0) - 1] = IGNORE
    loss = causal_lm(network, TextBatch(ids, target, documents))
    alone = [causal_lm(network, TextBatch(text[:, :-1], text[:, 1:], full=True)) for text in ids.split(lengths, 1)]
    torch.testing.assert_close(loss.total, torch.stack([one.total for one in alone]).sum(), rtol=1e-4, atol=1e-3)
    assert loss.count == sum(one.count for one in alone) == sum(lengths) - len(lengths)
    assert loss.parts["correct"] == sum(int(one.parts["correct"]) for one in alone)


@pytest.mark.parametrize("kind", ["classification", "seq2seq"])
def test_readings_that_agree_are_one_reading(kind: str) -> None:
    """Without dropout both readings are the same, and nothing lies between them."""
    config, batch = (LABELS, labelled()) if kind == "classification" else (PAPER, pairs())
    network, objective = network_of(config), getattr(objectives, kind)
    alone, twice = objective(network, batch, 0.1), objective(network, batch, 0.1, 5.0)
    torch.testing.assert_close(twice.total, alone.total)
    assert twice.count == alone.count and twice.parts["correct"] == alone.parts["correct"]
    check_same_gradients(twice.total, alone.total, network)


@pytest.mark.parametrize("kind", ["classification", "seq2seq"])
def test_readings_that_differ_cost_more_while_training_alone(kind: str) -> None:
    config, batch = (LABELS, labelled()) if kind == "classification" else (PAPER, pairs())
    network, objective = network_of(replace(config, dropout=0.3)), getattr(objectives, kind)

    def loss(consistency: float) -> Tensor:
        torch.manual_seed(1)
        with dropout_generator(torch.Generator().manual_seed(1)):
            return objective(network, batch, 0.1, consistency).total.detach()

    # α counts linearly, beside the mean of two readings
    apart = loss(2.0) - loss(1.0)
    assert apart > 1e-3
    torch.testing.assert_close(loss(5.0) - loss(2.0), 3 * apart, rtol=1e-3, atol=1e-3)
    network.eval()
    assert loss(5.0) == loss(0.0)
