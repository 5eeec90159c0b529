"""Scores of uncertainty from several answers to one question: do they say the same? Higher = more uncertain."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Unpack

import torch
from jaxtyping import Float
from torch import Tensor

from glassformer.errors import InputError
from glassformer.factuality.records import Record, record
from glassformer.factuality.uncertainty import Score, table_of
from glassformer.tasks.generate import Settings
from glassformer.tasks.model import Model
from glassformer.tasks.rouge import rouge_scores
from glassformer.tasks.squad import normalized

THRESHOLD = 0.8
"""Answers whose embeddings have at least this cosine mean the same; for all-MiniLM-L6-v2 on short answers."""


@dataclass(frozen=True, eq=False)
class Samples:
    """An answer, and `others` that were drawn for the same prompt.

    `vectors` [1 + n, D] of length 1 embed the texts, the answer's first; None where there is no embedder. `threshold`:
    see `meanings_of`.
    """

    answer: Record
    others: tuple[Record, ...]
    vectors: Float[Tensor, "m D"] | None = None
    threshold: float = THRESHOLD

    @property
    def texts(self) -> list[str]:
        """What the others say."""
        return [one.text for one in self.others]

    @cached_property
    def meanings(self) -> list[int]:
        """For each of the others the number of its meaning, from 0 on."""
        vectors = None if self.vectors is None else self.vectors[1:]
        return meanings_of(self.texts, vectors, self.threshold)


def draw(
    model: Model,
    answers: Sequence[Record],
    count: int,
    *,
    embedder: Model | None = None,
    threshold: float = THRESHOLD,
    **settings: Unpack[Settings],
) -> list[Samples]:
    """For each answer `count` others to its prompt, drawn at temperature 1 unless `settings` say otherwise.

    `embedder`, a model of sentences, says what means the same; without one, only equal normalised answers do. Raises
    `InputError` for fewer than 2 others, and for temperature 0: all would be the same.
    """
    if count < 2:
        raise InputError(f"answers are compared with each other: draw 2 at least, got {count}.")
    wanted = Settings(temperature=1.0) | settings
    if not wanted.get("temperature"):
        raise InputError("at temperature 0 all answers are the same one: give one above 0, such as 1.")
    prompts = [one.prompt_ids for one in answers for _ in range(count)]
    drawn = record(model, prompts, **wanted)
    sets = [tuple(drawn[number * count : (number + 1) * count]) for number in range(len(answers))]
    if embedder is None:
        return [Samples(answer, others, None, threshold) for answer, others in zip(answers, sets, strict=True)]
    rows = [[each.text.strip() or "." for each in (one, *others)] for one, others in zip(answers, sets, strict=True)]
    place = {text: number for number, text in enumerate(dict.fromkeys(text for row in rows for text in row))}
    vectors = embedder.embed(list(place), truncate=True, normalize=True)
    own = [vectors[[place[text] for text in row]] for row in rows]
    return [Samples(*each, threshold) for each in zip(answers, sets, own, strict=True)]


def meanings_of(
    texts: Sequence[str], vectors: Float[Tensor, "n D"] | None = None, threshold: float = THRESHOLD
) -> list[int]:
    """The number of each text's meaning, in order of appearance.

    A text joins the first meaning whose first text it equals, once both are normalised (`tasks.squad.normalized`), or
    resembles: the cosine of their `vectors` (of length 1) is at least `threshold`, and both have the same numbers in
    them (1815 is near 1503 for an embedder). Kuhn et al. 2023, algorithm 1, with likeness in place of entailment both
    ways.
    """
    bare = [normalized(text) or text.strip() for text in texts]
    numbers = [re.findall(r"\d+", text) for text in texts]
    alike = None if vectors is None else vectors @ vectors.T
    firsts: list[int] = []
    found: list[int] = []
    for place, text in enumerate(bare):
        for meaning, first in enumerate(firsts):
            near = alike is not None and float(alike[place, first]) >= threshold and numbers[place] == numbers[first]
            if near or text == bare[first]:
                found.append(meaning)
                break
        else:
            found.append(len(firsts))
            firsts.append(place)
    return found


def lexical_similarity(samples: Samples) -> float:
    """Less the mean ROUGE-L F1 over all pairs of the others."""
    pairs = list(combinations(samples.texts, 2))
    return -math.fsum(rouge_scores(a, b)["rougeL"].f1 for a, b in pairs) / _some(len(pairs))


def embedding_consistency(samples: Samples) -> float:
    """Less the mean cosine over all pairs of the others' embeddings."""
    if samples.vectors is None:
        raise InputError("this score needs embeddings: draw the samples with an 'embedder'.")
    alike = samples.vectors[1:] @ samples.vectors[1:].T
    n = _some(len(alike) - 1) + 1
    return -(float(alike.sum()) - float(alike.diagonal().sum())) / (n * (n - 1))


def semantic_entropy(samples: Samples) -> float:
    """−Σ P(c) log P(c) over meanings c; P(c) is the share of the different answers' probability that those of c have.

    An answer's probability is Π p(token). One that was drawn twice counts once: its probability has been seen, not
    half of it. Kuhn et al. 2023, section 3, with P(c) as the share of what was drawn, as in Farquhar et al. 2024.
    """
    masses: dict[int, list[float]] = {}
    for one, meaning in {one.ids: (one, m) for one, m in zip(samples.others, samples.meanings, strict=True)}.values():
        masses.setdefault(meaning, []).append(math.fsum(one.logprobs))
    logs = torch.stack([torch.tensor(each, dtype=torch.float64).logsumexp(0) for each in masses.values()])
    return max(0.0, float(-(logs.softmax(0) * logs.log_softmax(0)).sum()))


def discrete_semantic_entropy(samples: Samples) -> float:
    """The same with P(c) the share of the answers that mean c: it asks for no probabilities (Farquhar et al. 2024)."""
    counts = Counter(samples.meanings).values()
    n = _some(sum(counts))
    return max(0.0, -math.fsum(count / n * math.log(count / n) for count in counts))


def number_of_meanings(samples: Samples) -> float:
    """How many meanings the others have."""
    return float(len(set(samples.meanings)))


def disagreement(samples: Samples) -> float:
    """The share of the others that do not mean what the answer means."""
    texts = [samples.answer.text, *samples.texts]
    alike = [meanings_of([texts[0], text], _pair(samples, place), samples.threshold) for place, text in
             enumerate(texts[1:], 1)]  # fmt: skip
    return sum(second != first for first, second in alike) / _some(len(alike))


def self_check(samples: Samples, n: int = 1, worst: bool = False) -> float:
    """The mean (or, `worst`, the greatest) −log p of the answer's words by an n-gram model of all answers.

    Words are runs of letters and digits, in lower case; p(word | n − 1 words before) is its share among the answer and
    the others together, so that it is never 0. Manakul et al. 2023, SelfCheckGPT, section 5.4.
    """
    texts = [_words(text, n) for text in (samples.answer.text, *samples.texts)]
    counts = Counter(gram for text in texts for gram in text)
    before = Counter(gram[:-1] for text in texts for gram in text)
    surprise = [math.log(before[gram[:-1]] / counts[gram]) for gram in texts[0]]
    if not surprise:
        return math.log(sum(counts.values()) + 1)  # no word at all: as improbable as one that no answer has
    return max(surprise) if worst else math.fsum(surprise) / len(surprise)


def _words(text: str, n: int) -> list[tuple[str, ...]]:
    """The n-grams of a text that begins with n − 1 empty words."""
    words = [""] * (n - 1) + re.findall(r"\w+", text.lower())
    return list(zip(*(words[place:] for place in range(n)), strict=False))


def _pair(samples: Samples, place: int) -> Tensor | None:
    return None if samples.vectors is None else samples.vectors[[0, place]]


def _some(count: int) -> int:
    if count < 1:
        raise InputError("answers are compared with each other: there must be 2 at least besides the answer.")
    return count


_KUHN = "Kuhn et al. 2023, Semantic Uncertainty"
_FARQUHAR = "Farquhar et al. 2024, Detecting Hallucinations in Large Language Models using Semantic Entropy"
_LIN = "Lin et al. 2024, Generating with Confidence"
_MANAKUL = "Manakul et al. 2023, SelfCheckGPT"

SAMPLED: Mapping[str, Score] = table_of(
    Score("lexical similarity", lexical_similarity, "Fomicheva et al. 2020; Kuhn et al. 2023", "sampled"),
    Score("embedding consistency", embedding_consistency, _LIN, "sampled"),
    Score("semantic entropy", semantic_entropy, _KUHN, "sampled"),
    Score("discrete semantic entropy", discrete_semantic_entropy, _FARQUHAR, "sampled"),
    Score("number of meanings", number_of_meanings, f"{_LIN}; {_KUHN}", "sampled"),
    Score("disagreement", disagreement, "Wang et al. 2023, Self-Consistency", "sampled"),
    Score("self-check", self_check, _MANAKUL, "sampled"),
    Score("worst self-check", lambda samples: self_check(samples, worst=True), _MANAKUL, "sampled"),
)
"""All that several answers tell together."""
