"""Exact match and F1 of answers, as the evaluation scripts of SQuAD 1.1 and 2.0 define them.

Rajpurkar et al. 2016, "SQuAD: 100,000+ Questions for Machine Comprehension of Text", section 6.1, and Rajpurkar et al.
2018, "Know What You Don't Know: Unanswerable Questions for SQuAD". A question without answers cannot be answered from
its text; the right prediction is then the empty string.
"""

from __future__ import annotations

import math
import re
import string
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from glassformer.errors import InputError

_WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)


@dataclass(frozen=True)
class AnswerScore:
    """How good one prediction is: `exact_match` is 0 or 1, `f1` from 0 to 1."""

    exact_match: float
    f1: float


@dataclass(frozen=True)
class Threshold:
    """A question is refused where null score − span score is greater than `value`; `f1` (0 to 100) results."""

    value: float
    f1: float


def normalized(text: str) -> str:
    """The text in lower case without ASCII punctuation, without the words a, an, the, and with single spaces."""
    bare = text.lower().translate(_WITHOUT_PUNCTUATION)
    return " ".join(re.sub(r"\b(?:a|an|the)\b", " ", bare).split())


def exact_match(prediction: str, answers: Sequence[str]) -> float:
    """1 if the normalised prediction is one of the normalised answers, else 0.

    Without answers the question cannot be answered: 1 if the normalised prediction is empty.
    """
    return _best(_same, prediction, answers)


def f1(prediction: str, answers: Sequence[str]) -> float:
    """The harmonic mean of precision and recall of the normalised words, for the answer that gives the most; 0 to 1.

    A word counts as often as in the text that has it fewer times. Without answers the question cannot be answered: 1 if
    the normalised prediction is empty, else 0.
    """
    return _best(_word_f1, prediction, answers)


def score_questions(predictions: Mapping[str, str], references: Mapping[str, Sequence[str]]) -> dict[str, AnswerScore]:
    """The score of every question of `references`, in its order; both are by the question's id.

    Where some question has no answers the set is scored as SQuAD 2.0: an answer that normalises to nothing (a lone full
    stop) does not count. A question without prediction is wrong, also where the right one is the empty string (the 2.0
    script leaves it out instead). An `InputError` if there are no questions, or predictions without question.
    """
    if not references:
        raise InputError("there is nothing to score: no questions.")
    if unknown := [key for key in predictions if key not in references]:
        raise InputError(
            f"every prediction needs its question, but {len(unknown)} of {len(predictions)} have ids that are not "
            f"among the {len(references)} questions (the first: '{unknown[0]}'); score them against their own data."
        )
    if not all(references.values()):
        references = _without_empty(references)
    wrong = AnswerScore(0.0, 0.0)
    return {
        key: AnswerScore(exact_match(predictions[key], answers), f1(predictions[key], answers))
        if key in predictions
        else wrong
        for key, answers in references.items()
    }


def score_answers(predictions: Mapping[str, str], references: Mapping[str, Sequence[str]]) -> dict[str, float | int]:
    """The mean `exact_match` and `f1` (0 to 100) over the `n` questions, and how many are `missing` a prediction.

    Where some question has no answers there are also `has_answer_n` and `no_answer_n`, and the means over either kind
    (`has_answer_exact_match`, `has_answer_f1`, `no_answer_exact_match`, `no_answer_f1`; none for a kind without
    questions). Both arguments are by the question's id. Errors and details: `score_questions`.
    """
    scores = score_questions(predictions, references)
    result: dict[str, float | int] = _means(scores.values())
    result["missing"] = sum(key not in predictions for key in references)
    if not all(references.values()):
        result |= _means((score for key, score in scores.items() if references[key]), "has_answer_")
        result |= _means((score for key, score in scores.items() if not references[key]), "no_answer_")
    return result


def refuse(predictions: Mapping[str, str], differences: Mapping[str, float], threshold: float) -> dict[str, str]:
    """The predictions, but the empty string where null score − span score is greater than `threshold`."""
    return {key: "" if differences[key] > threshold else prediction for key, prediction in predictions.items()}


def best_threshold(
    differences: Mapping[str, float], predictions: Mapping[str, str], references: Mapping[str, Sequence[str]]
) -> Threshold:
    """The threshold on null score − span score above which refusing gives the greatest mean F1.

    `predictions` are the best spans, refused or not. The candidates are the differences themselves (a question whose
    difference is the threshold is answered), and one below the least, which refuses all. Of equally good ones it is the
    smallest: it refuses most. Questions of equal difference are refused together, so that the F1 given is the one that
    `score_answers` finds after `refuse`. The search is that of the SQuAD 2.0 script.

    All three are by the question's id and must have the same ids; the differences must be finite; else an `InputError`.
    """
    if not references:
        raise InputError("there is no threshold to find: no questions.")
    for name, given in (("difference", differences), ("prediction", predictions)):
        if odd := given.keys() ^ references.keys():
            raise InputError(f"every question needs its {name} and the reverse, but '{min(odd)}' has one of them only.")
    if infinite := [key for key, value in differences.items() if not math.isfinite(value)]:
        raise InputError(f"differences must be finite, got {differences[infinite[0]]} for question '{infinite[0]}'.")
    if not all(references.values()):
        references = _without_empty(references)
    order = sorted(differences, key=lambda key: differences[key])
    least = differences[order[0]]
    best_value = min(least - 1.0, math.nextafter(least, -math.inf))  # the latter where least − 1 rounds to least
    best_total = total = math.fsum(f1("", references[key]) for key in order)
    for i, key in enumerate(order):
        total += f1(predictions[key], references[key]) - f1("", references[key])
        last_of_equals = i + 1 == len(order) or differences[order[i + 1]] > differences[key]
        # Rounding of the sum must not make an equally good threshold a better one.
        if last_of_equals and total > best_total + 1e-9:
            best_total, best_value = total, differences[key]
    return Threshold(float(best_value), 100 * best_total / len(order))


def _best(score: Callable[[str, str], float], prediction: str, answers: Sequence[str]) -> float:
    if not answers:
        return float(normalized(prediction) == "")
    return max(score(normalized(prediction), normalized(answer)) for answer in answers)


def _same(prediction: str, answer: str) -> float:
    return float(prediction == answer)


def _word_f1(prediction: str, answer: str) -> float:
    found, wanted = Counter(prediction.split()), Counter(answer.split())
    common = (found & wanted).total()
    if not common:
        return 0.0
    precision, recall = common / found.total(), common / wanted.total()
    return 2 * precision * recall / (precision + recall)


def _without_empty(references: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    return {key: [answer for answer in answers if normalized(answer)] for key, answers in references.items()}


def _means(scores: Iterable[AnswerScore], prefix: str = "") -> dict[str, float | int]:
    scores = list(scores)
    result: dict[str, float | int] = {}
    if scores:
        result[f"{prefix}exact_match"] = 100 * math.fsum(score.exact_match for score in scores) / len(scores)
        result[f"{prefix}f1"] = 100 * math.fsum(score.f1 for score in scores) / len(scores)
    return result | {f"{prefix}n": len(scores)}
