"""How good a model is on held-out pairs: it translates them as a user would, and the result is scored."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Protocol

from glassformer.tasks import metrics
from glassformer.tasks.model import BATCH_TOKENS, Model


class Pairs(Protocol):
    """Sources, and the reference of each."""

    @property
    def source(self) -> Sequence[str]: ...
    @property
    def target(self) -> Sequence[str]: ...


def evaluate(
    model: Model,
    pairs: Pairs,
    *,
    tokenized: bool = False,
    beam: int = 5,
    length_penalty: float = 1.0,
    max_length: int | None = None,
    batch_tokens: int = BATCH_TOKENS,
) -> dict[str, Any]:
    """Translate `pairs.source` and score the result against `pairs.target`.

    Gives `bleu` and `chrf` (0 to 100) each with its `_signature`, `exact_match` (0 to 1), the number of pairs `n`,
    how many translations were `cut_off` at the most tokens allowed, and the `seconds` that translating took.

    With `tokenized` both sides of `pairs` are tokens separated by spaces, as the model's pipeline makes them, and BLEU
    is that of the tokens (`tok:none`); else they are text and BLEU is detokenised (`tok:13a`). The two cannot be
    compared. A model that writes lower case only is scored ignoring case (`case:lc`) on text.
    """
    began = time.perf_counter()
    results = model.translate(
        list(pairs.source),
        beam=beam,
        length_penalty=length_penalty,
        max_length=max_length,
        tokenized=tokenized,
        batch_tokens=batch_tokens,
    )
    seconds = time.perf_counter() - began
    hypotheses, references = [result.text for result in results], list(pairs.target)
    lowercase = model.pipeline.lowercase and not tokenized
    bleu = metrics.bleu(hypotheses, references, tokenized=tokenized, lowercase=lowercase)
    chrf = metrics.chrf(hypotheses, references, lowercase=lowercase)
    return {
        "bleu": bleu.value,
        "bleu_signature": bleu.signature,
        "chrf": chrf.value,
        "chrf_signature": chrf.signature,
        "exact_match": metrics.exact_match(hypotheses, references),
        "n": len(references),
        "cut_off": sum(result.finish_reason == "length" for result in results),
        "seconds": seconds,
    }
