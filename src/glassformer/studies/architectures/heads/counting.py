"""As many parameters, cut into more heads: small translators of dates with 1, 2, 4 and 8 heads."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch

from glassformer.models.config import Config
from glassformer.models.encoder_decoder import EncoderDecoder
from glassformer.studies.fitting import fit
from glassformer.studies.study import Setting
from glassformer.tasks.objectives import seq2seq
from glassformer.text.dates import LOCALES, dates_corpus
from glassformer.text.pairs import PairBatch, PairBatches
from glassformer.text.tokenizer import Tokenizer

COUNTS = (1, 2, 4, 8)
D_MODEL = 64
RATE = 3.5e-3
"""That of the recipe for dates; one for all numbers of heads."""


def count_heads(setting: Setting) -> dict[str, Any]:
    """Train a network for each number of heads and each seed; losses and shares on days that none has seen."""
    counts = setting.pick((1, 2), COUNTS, COUNTS)
    steps, seeds = setting.pick(2, 90, 450), setting.pick(1, 2, 3)
    locales = setting.pick(LOCALES[9:11], ("en", "de", "fr", "es", "it", "nl", "sv", "pl"), LOCALES)
    train = dates_corpus("train", size=setting.pick(200, 4_000, 30_000), locales=locales)
    test = dates_corpus("test", size=setting.pick(40, 400, 900), locales=locales)
    tokenizer = Tokenizer.train([*train.source, *train.target], "character", vocab_size=2000, min_frequency=1)
    ids = [tokenizer.encode_all(side) for side in (train.source, train.target, test.source, test.target)]
    learnt, judged = PairBatches(*ids[:2], tokens=setting.pick(400, 600, 1280)), PairBatches(*ids[2:], tokens=2000)
    rows = []
    for count in counts:
        setting.say(f"   {count} head(s)")
        runs = [_trained(count, seed, steps, learnt, judged, tokenizer.vocab_size) for seed in range(1, seeds + 1)]
        rows.append({"heads": count, **{name: [run[name] for run in runs] for name in runs[0]}})
    return {
        "steps": steps,
        "seeds": seeds,
        "locales": len(locales),
        "test_pairs": len(judged),
        "d_model": D_MODEL,
        "parameters": sum(p.numel() for p in _network(1, tokenizer.vocab_size).parameters()),
        "rows": rows,
    }


def _network(heads: int, vocab_size: int) -> EncoderDecoder:
    """Two layers on each side; the number of heads changes no parameter."""
    config = Config(
        vocab_size=vocab_size,
        d_model=D_MODEL,
        n_heads=heads,
        d_ff=2 * D_MODEL,
        n_encoder_layers=2,
        n_decoder_layers=2,
        max_length=128,
        norm_first=True,
        dropout=0.0,
    )
    return EncoderDecoder(config)


def _trained(
    heads: int, seed: int, steps: int, learnt: PairBatches, judged: PairBatches, vocab_size: int
) -> dict[str, float]:
    """`loss` (nats a character), `characters` and `exact` (shares) on the test days after a training."""
    torch.manual_seed(seed)
    network = _network(heads, vocab_size)
    batches = _endless(learnt, seed)
    objective = partial(seq2seq, label_smoothing=0.0)
    fit(network, objective, lambda step: next(batches), steps=steps, rate=RATE, seed=seed, warmup=steps // 10)
    return judge(network, judged)


def _endless(batches: PairBatches, seed: int) -> Iterator[PairBatch]:
    """The same batches in the same order for every number of heads; another order for another seed."""
    epoch = 1000 * seed
    while True:
        for rows in batches.epoch(epoch):
            yield batches.batch(rows, epoch)
        epoch += 1


@torch.no_grad()
def judge(network: EncoderDecoder, batches: PairBatches) -> dict[str, float]:
    """Loss (nats a token), share of tokens that are the most likely one, share of pairs with all of them right.

    The last is what greedy decoding would get exactly right: as long as it has made no mistake, it has read what it
    is given here.
    """
    loss = right = tokens = exact = pairs = 0.0
    for batch in batches.once():
        wanted = batch.target[:, 1:]
        logits = network(batch.source, batch.target[:, :-1]).logits
        real = wanted != network.config.pad_id
        hit = (logits.argmax(-1) == wanted) | ~real
        loss += float(-logits.log_softmax(-1).gather(-1, wanted[..., None])[..., 0][real].sum())
        tokens += float(real.sum())
        right += float((hit & real).sum())
        exact += float(hit.all(1).sum())
        pairs += len(batch)
    return {"loss": loss / tokens, "characters": right / tokens, "exact": exact / pairs}
