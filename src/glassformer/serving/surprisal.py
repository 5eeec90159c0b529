"""How much a text surprises a model, token by token: what each had been given before it was read."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from glassformer.interpret.inputs import prepare
from glassformer.interpret.running import Plan, run
from glassformer.layers.sites import share
from glassformer.models.encoder import Encoder
from glassformer.serving.documents import TOP, Document, headed, rounded
from glassformer.serving.passes import Pass, one_pass
from glassformer.serving.patches import answered_at
from glassformer.serving.progress import Progress
from glassformer.serving.readings import Reading, Spelling, fills
from glassformer.tasks.model import Model

MASKED = 2048
"""Texts with one token masked are read together, up to so many tokens of them."""


def tokens_document(
    model: Model,
    text: str,
    target: str | None = None,
    progress: Progress = Progress(),  # noqa: B008 - it is frozen
    *,
    passed: Pass | None = None,
) -> Document:
    """The tokens of a text (an encoder-decoder's: of its target), each with the probability, the rank and the surprisal
    −log₂ p that the model gave it; see `serving.documents`. A masked language model is asked for each token with a mask
    in its place (Salazar et al. 2020). Texts, and what has `passed` in them already, as in `attention_document`.
    """
    passed = passed or one_pass(model, text, target)
    given = passed.reading
    spelled = Spelling(model.tokenizer)
    ids = given.written or given.ids
    about: Document = {"view": "tokens", "side": "target" if given.written else "text", "tokens": spelled(ids)}
    if given.written:
        about["source"] = spelled(given.ids)
    if isinstance(model.network, Encoder) and (not fills(model) or model.tokenizer.mask_id is None):
        why = "this model says no words: no token has a probability here."
        return headed(model, text, {**about, "unscored": why, **_empty(len(ids))})
    question, places, logits = _masked(model, given, progress) if fills(model) else _next(passed)
    return headed(model, text, {**about, "question": question, **_scored(logits, ids, places, spelled)})


def _next(passed: Pass) -> tuple[str, list[int], Float[Tensor, "n V"]]:
    """What follows each token is what the model said there."""
    given, logits = passed.reading, passed.logits
    assert logits is not None  # this is no encoder
    count = len(given.written or given.ids)
    if given.written:
        return "before it was written, the source known", list(range(count)), logits[:count]
    return "before it was read", list(range(1, count)), logits[: count - 1]


def _masked(model: Model, given: Reading, progress: Progress) -> tuple[str, list[int], Float[Tensor, "n V"]]:
    tokenizer = model.tokenizer
    special = {tokenizer.cls_id, tokenizer.sep_id, tokenizer.mask_id, tokenizer.pad_id}
    places = [place for place, i in enumerate(given.ids) if i not in special]
    network, rows = share(model.network).eval(), torch.tensor([given.ids] * len(places))
    at: Int[Tensor, n] = torch.tensor(places, dtype=torch.long)
    if places:
        rows[torch.arange(len(places)), at] = int(tokenizer.mask_id or 0)
    found = []
    for some in torch.arange(len(places)).split(max(1, MASKED // len(given.ids))):
        progress.at(float(some[0]) / len(places))
        inputs = answered_at(prepare(network, rows[some].tolist()), at[some])
        found.append(run(network, inputs, slice(0, len(some)), Plan({}, {}, {}), ends=True))
    logits = torch.cat(found) if found else torch.empty(0, model.config.vocab_size)
    return "with a mask in its place and the rest of the text known", places, logits


def _scored(logits: Float[Tensor, "n V"], ids: tuple[int, ...], places: list[int], spelled: Spelling) -> Document:
    """The numbers of the tokens at `places`; those of the others are null."""
    logs = logits.float().cpu().log_softmax(-1)
    own = torch.tensor([ids[place] for place in places], dtype=torch.long)[:, None]
    said = logs.gather(1, own)
    ranks = ((logs > said).sum(-1) + 1).tolist()
    best = logs.exp().topk(min(TOP, logs.shape[-1]))
    document = _empty(len(ids))
    columns = {
        "probabilities": rounded(said[:, 0].exp()),
        "surprisals": rounded(-said[:, 0] / math.log(2)),
        "ranks": ranks,
        "words": [spelled(row) for row in best.indices.tolist()],
        "shares": rounded(best.values),
    }
    for name, values in columns.items():
        for place, value in zip(places, values, strict=True):
            document[name][place] = value
    return document


def _empty(count: int) -> Document:
    names = "probabilities", "surprisals", "ranks", "words", "shares"
    return {name: [None] * count for name in names}
