"""Is one translator better than another, or were the sentences kind to it? (Koehn 2004)"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sacrebleu.metrics.bleu import BLEU


@dataclass(frozen=True)
class Compared:
    """BLEU of two systems on the same sentences, the 95 % interval of the first's and of the difference, and how often
    the second was at least as good as the first among the resampled test sets (its share is the one-sided p)."""

    first: float
    second: float
    low: float
    high: float
    difference_low: float
    difference_high: float
    p: float


def paired_bootstrap(
    first: Sequence[str], second: Sequence[str], references: Sequence[str], resamples: int = 1000, seed: int = 0
) -> Compared:
    """Compare tokenised translations by BLEU on test sets drawn with replacement from this one, the same for both."""
    counts = [_statistics(texts, references) for texts in (first, second)]
    drawn = np.random.default_rng(seed).integers(0, len(references), (resamples, len(references)))
    scores = np.array([[_bleu(each[rows].sum(0)) for each in counts] for rows in drawn])
    differences = scores[:, 0] - scores[:, 1]
    low, high = np.quantile(scores[:, 0], [0.025, 0.975])
    difference_low, difference_high = np.quantile(differences, [0.025, 0.975])
    a, b = (_bleu(each.sum(0)) for each in counts)
    p = float((differences <= 0).mean())
    return Compared(a, b, float(low), float(high), float(difference_low), float(difference_high), p)


def _statistics(texts: Sequence[str], references: Sequence[str]) -> NDArray[np.int64]:
    """[sentences, 10]: matching n-grams and n-grams for n = 1 … 4, lengths of translation and reference."""
    metric = BLEU(tokenize="none", force=True)
    scores = [metric.corpus_score([text], [[reference]]) for text, reference in zip(texts, references, strict=True)]
    return np.array([[*score.counts, *score.totals, score.sys_len, score.ref_len] for score in scores])


def _bleu(sums: NDArray[np.int64]) -> float:
    numbers = [int(value) for value in sums]
    return float(BLEU.compute_bleu(numbers[:4], numbers[4:8], numbers[8], numbers[9]).score)
