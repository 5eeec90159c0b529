"""Scores of generated text against references; each says by what it was measured."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from glassformer.errors import InputError


@dataclass(frozen=True)
class Score:
    """A corpus score from 0 to 100, and sacreBLEU's signature: only scores with equal signatures can be compared."""

    value: float
    signature: str


def bleu(
    hypotheses: Sequence[str], references: Sequence[str], *, tokenized: bool = False, lowercase: bool = False
) -> Score:
    """Corpus BLEU (Papineni et al. 2002) by sacreBLEU (Post 2018), one reference a sentence.

    Text is tokenised by `13a`; with `tokenized` it is taken as tokens separated by spaces (`tok:none`). `lowercase`
    ignores case (`case:lc`).
    """
    from sacrebleu.metrics.bleu import BLEU  # here: a language model that starts need not wait for it

    _check(hypotheses, references)
    # force: no warning about final full stops in text that is meant to be tokens
    metric = BLEU(tokenize="none" if tokenized else "13a", lowercase=lowercase, force=tokenized)
    score = metric.corpus_score(list(hypotheses), [list(references)])
    return Score(float(score.score), str(metric.get_signature()))


def chrf(hypotheses: Sequence[str], references: Sequence[str], *, lowercase: bool = False) -> Score:
    """Corpus chrF2 (Popović 2015) by sacreBLEU: F-score of character 1- to 6-grams, white space left out."""
    from sacrebleu.metrics.chrf import CHRF

    _check(hypotheses, references)
    metric = CHRF(lowercase=lowercase)
    score = metric.corpus_score(list(hypotheses), [list(references)])
    return Score(float(score.score), str(metric.get_signature()))


def exact_match(hypotheses: Sequence[str], references: Sequence[str]) -> float:
    """The share, from 0 to 1, of hypotheses that are their reference, character by character."""
    _check(hypotheses, references)
    return sum(h == r for h, r in zip(hypotheses, references, strict=True)) / len(references)


def accuracy(predicted: Sequence[Hashable], reference: Sequence[Hashable]) -> float:
    """The share, from 0 to 1, of predicted labels that are their reference."""
    _check(predicted, reference)
    return sum(p == r for p, r in zip(predicted, reference, strict=True)) / len(reference)


def macro_f1(predicted: Sequence[Hashable], reference: Sequence[Hashable]) -> float:
    """The mean of the labels' F1, from 0 to 1: every label counts alike, however rare.

    The F1 of a label is 2 · hits / (times predicted + times in the reference). The labels are those that either of the
    two holds, so one that is predicted but never right counts as 0.
    """
    _check(predicted, reference)
    hits = Counter(p for p, r in zip(predicted, reference, strict=True) if p == r)
    times = Counter(predicted) + Counter(reference)
    return sum(2 * hits[label] / times[label] for label in times) / len(times)


def _check(hypotheses: Sequence[Hashable], references: Sequence[Hashable]) -> None:
    if len(hypotheses) != len(references):
        raise InputError(f"every prediction needs its reference, got {len(hypotheses)} and {len(references)}.")
    if not references:
        raise InputError("there is nothing to score: no predictions and no references.")
