"""ROUGE: how much of a reference summary a summary holds, and how much of the summary is in the reference.

Lin 2004, "ROUGE: A Package for Automatic Evaluation of Summaries", with the tokens of the package rouge-score (0.1.2),
so that the figures can be compared with those published since.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from glassformer.errors import InputError
from glassformer.text.stemmer import stem

NAMES = ("rouge1", "rouge2", "rougeL")


@dataclass(frozen=True)
class Overlap:
    """What a hypothesis shares with its reference, each from 0 to 1; `f1` is the harmonic mean of the other two."""

    precision: float
    recall: float
    f1: float


def rouge(hypotheses: Sequence[str], references: Sequence[str], *, stemmer: bool = True) -> dict[str, float]:
    """ROUGE-1, ROUGE-2 and ROUGE-L of a corpus: each the mean of its texts' F1, from 0 to 100.

    One reference a hypothesis. With `stemmer` (the usual setting in papers) words count as equal that have the same
    stem. An `InputError` if the two differ in number or are empty. See `rouge_scores`.
    """
    if len(hypotheses) != len(references):
        raise InputError(f"every hypothesis needs its reference, got {len(hypotheses)} and {len(references)}.")
    if not references:
        raise InputError("there is nothing to score: no hypotheses and no references.")
    scores = [rouge_scores(h, r, stemmer=stemmer) for h, r in zip(hypotheses, references, strict=True)]
    return {name: 100 * sum(score[name].f1 for score in scores) / len(scores) for name in NAMES}


def rouge_scores(hypothesis: str, reference: str, *, stemmer: bool = True) -> dict[str, Overlap]:
    """`rouge1`, `rouge2` and `rougeL` of one text against its reference.

    ROUGE-N counts the n-grams that both have, each as often as in the one that has fewer. ROUGE-L counts the words of
    the longest common subsequence of the whole texts (line breaks do not matter; that would be ROUGE-Lsum). Precision
    is the share of the hypothesis, recall the share of the reference. Where a side has no n-gram all are 0.
    """
    found, wanted = tokens(hypothesis, stemmer=stemmer), tokens(reference, stemmer=stemmer)
    return {
        "rouge1": _ngram_overlap(found, wanted, 1),
        "rouge2": _ngram_overlap(found, wanted, 2),
        "rougeL": _overlap(longest_common_subsequence(found, wanted), len(found), len(wanted)),
    }


def tokens(text: str, *, stemmer: bool = True) -> list[str]:
    """The runs of a–z and 0–9 in the text in lower case; with `stemmer` those longer than 3 are stemmed.

    Letters beyond a–z separate tokens, as in rouge-score: ROUGE is a measure for English.
    """
    found = re.findall("[a-z0-9]+", text.lower())
    return [stem(token) if len(token) > 3 else token for token in found] if stemmer else found


def longest_common_subsequence(first: Sequence[str], second: Sequence[str]) -> int:
    """The length of the longest sequence that both hold in this order, with gaps.

    One row of the usual table, as the bits of one integer, is updated at once: Hyyrö 2004, "Bit-parallel LCS-length
    computation revisited". Bit i is 0 where the row's value grows at token i of `first`.
    """
    places: dict[str, int] = {}
    for i, token in enumerate(first):
        places[token] = places.get(token, 0) | 1 << i
    whole = (1 << len(first)) - 1
    row = whole
    for token in second:
        matches = row & places.get(token, 0)
        row = (row + matches | row - matches) & whole
    return len(first) - row.bit_count()


def _ngram_overlap(found: Sequence[str], wanted: Sequence[str], n: int) -> Overlap:
    ours, theirs = (Counter(zip(*(side[i:] for i in range(n)), strict=False)) for side in (found, wanted))
    return _overlap((ours & theirs).total(), ours.total(), theirs.total())


def _overlap(common: int, found: int, wanted: int) -> Overlap:
    precision, recall = common / max(found, 1), common / max(wanted, 1)
    return Overlap(precision, recall, 2 * precision * recall / (precision + recall) if common else 0.0)
