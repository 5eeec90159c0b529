"""What contrasting decoding changes: the same questions with and without it, settings chosen on other questions."""

from __future__ import annotations

import csv
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from glassformer.factuality.labelling import prompt_ids_of
from glassformer.factuality.prompts import STOP, ids_of
from glassformer.factuality.questions import Question, is_right, read_questions, split_by_entity
from glassformer.factuality.records import record_answers
from glassformer.generation.contrast import ContextAware, Dola, contrasted
from glassformer.generation.decoding import evaluation
from glassformer.generation.sampling import log_probabilities
from glassformer.studies.hallucination.bench import Bench
from glassformer.studies.hallucination.wrong_evidence import Case, cases_of
from glassformer.studies.study import Result, Setting
from glassformer.tasks.intervals import bootstrap
from glassformer.tasks.model import Model
from glassformer.text.columns import read_text

DOLA: Mapping[str, Dola] = {
    f"{layers}, α = {alpha}": Dola(layers, alpha) for layers in ("low", "high") for alpha in (0.1, 0.5)
}
"""DoLa as it is tried: candidate layers, and how plausible a token must be."""

SCORING: Mapping[str, Dola] = {"low": Dola("low", 0.0), "high": Dola("high", 0.0)}
"""DoLa for given answers, which may hold tokens that are not plausible."""

STRENGTHS = (0.5, 1.0)
"""Of context-aware decoding."""

SQUAD, TRUTHFUL = "squad_v1.1/dev-v1.1.rebuilt.json", "truthfulqa/TruthfulQA.csv"

LONGEST = 600
"""Evidence has at most so many characters."""

SHARES = (1, 3)
"""A quarter of the questions is for choosing, the rest for the report."""

_ANSWER = 12  # tokens at most


@dataclass(frozen=True)
class Pair:
    """A question of TruthfulQA with a true and a false answer."""

    question: Question
    true: str
    false: str


def paired(plain: Sequence[float], other: Sequence[float], groups: Sequence[str], seed: int = 0) -> Result:
    """Both means, their difference (the second less the first), and its 95 % interval: a bootstrap over groups, such
    as the entities, whose questions are drawn together."""
    differences = np.asarray(other, dtype=np.float64) - np.asarray(plain, dtype=np.float64)
    sums: dict[str, float] = {}
    for group, difference in zip(groups, differences.tolist(), strict=True):
        sums[group.casefold()] = sums.get(group.casefold(), 0.0) + difference
    # each group's part of the whole difference, so that their mean is that of the questions
    parts = [total * len(sums) / len(differences) for total in sums.values()]
    interval = bootstrap(parts, seed=seed)
    return {
        "n": len(differences),
        "groups": len(sums),
        "plain": float(np.mean(plain)),
        "other": float(np.mean(other)),
        "difference": float(differences.mean()),
        "low": interval.low,
        "high": interval.high,
        "gained": int((differences > 0).sum()),
        "lost": int((differences < 0).sum()),
    }


def drawn(values: Sequence[Any], count: int, seed: str) -> list[Any]:
    """So many of them, or all, in their order."""
    rows = random.Random(seed).sample(range(len(values)), min(count, len(values)))
    return [values[row] for row in sorted(rows)]


def best(tried: Mapping[str, float]) -> str:
    """The setting that was best where it was to be chosen, the first of equals."""
    return max(tried, key=lambda name: tried[name])


# --- DoLa: questions of relations -------------------------------------------------------------------------------------


def relations(bench: Bench, setting: Setting) -> Result:
    """Accuracy on 3-shot questions of relations, layers and threshold chosen on other entities."""
    asked = bench.relation_questions(setting)
    asking = bench.asking(asked)
    few = drawn(asked, setting.pick(18, 160, 400), f"decoding {bench.seed}")
    chosen, told = split_by_entity(few, SHARES, bench.seed)

    def right(rows: Sequence[int], name: str) -> list[float]:
        prompts = [prompt_ids_of(bench.model, few[row], asking) for row in rows]
        settings: Any = {"max_new_tokens": asking.max_new_tokens, "stop": STOP, "contrast": DOLA[name]}
        results = bench.model.generate(prompts, **settings)
        return [
            float(is_right(one.text, few[row], lenient=not asking.count))
            for row, one in zip(rows, results, strict=True)
        ]

    tried = {name: float(np.mean(right(chosen, name))) for name in DOLA}
    setting.say(f"   DoLa on {len(chosen)} questions of relations: {tried}")
    plain = bench.answered([few[row] for row in told], asking, setting)
    groups = [one.question.entity for one in plain]
    found = paired([float(one.right) for one in plain], right(told, best(tried)), groups, bench.seed)
    return {"tried": tried, "chosen": best(tried), "chosen_on": len(chosen), **found}


# --- DoLa: true and false answers -------------------------------------------------------------------------------------


def read_pairs(path: Path) -> list[Pair]:
    """TruthfulQA's questions with the best answer and the first of the incorrect ones."""
    rows = list(csv.DictReader(read_text(path, "TruthfulQA's table").splitlines()))
    false = {row["Question"]: row["Incorrect Answers"].split(";")[0].strip() for row in rows}
    found = [(one, false.get(one.question, "")) for one in read_questions(path)]
    return [Pair(one, one.answers[0], other) for one, other in found if other]


def answer_scores(
    model: Model, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]], how: Dola | None
) -> list[float]:
    """log p of each answer after its prompt, in nats, by plain decoding (`how` None) or DoLa."""
    if how is None:
        given = record_answers(model, [list(ids) for ids in prompts], [list(ids) for ids in answers])
        return [sum(one.logprobs) for one in given]
    network, found = contrasted(model.running, how), []
    with torch.inference_mode(), evaluation(model.network):
        for prompt, answer in zip(prompts, answers, strict=True):
            ids = torch.tensor([[*prompt, *answer[:-1]]], device=model.device)
            states = network.read(ids, None, network.start(1, ids.shape[1]))[0, len(prompt) - 1 :]
            wanted = torch.tensor(list(answer), device=model.device)
            found.append(sum(log_probabilities(network.head(states), wanted)[0]))
    return found


def truthful(bench: Bench, setting: Setting) -> Result:
    """How often the true answer is the more probable one, and by how much, the layers chosen on other questions."""
    pairs = drawn(read_pairs(bench.file(TRUTHFUL)), setting.pick(9, 40, 120), f"decoding {bench.seed}")
    chosen, told = split_by_entity([pair.question for pair in pairs], SHARES, bench.seed)

    def margins(rows: Sequence[int], how: Dola | None) -> list[float]:
        prompts = [ids_of(bench.model, pairs[row].question, (), "bare") for row in rows]
        true, false = (
            answer_scores(bench.model, prompts, [_answer_ids(bench.model, text) for text in texts], how)
            for texts in ([pairs[row].true for row in rows], [pairs[row].false for row in rows])
        )
        return [one - other for one, other in zip(true, false, strict=True)]

    tried = {name: _share_above_0(margins(chosen, how)) for name, how in SCORING.items()}
    setting.say(f"   DoLa on {len(chosen)} questions of TruthfulQA: {tried}")
    plain, other = margins(told, None), margins(told, SCORING[best(tried)])
    groups = [pairs[row].question.id for row in told]
    found = paired([float(one > 0) for one in plain], [float(one > 0) for one in other], groups, bench.seed)
    return {
        **{"tried": tried, "chosen": best(tried), "chosen_on": len(chosen), **found},
        "margins": paired(plain, other, groups, bench.seed),
    }


def _share_above_0(margins: Sequence[float]) -> float:
    return float(np.mean([margin > 0 for margin in margins]))


def _answer_ids(model: Model, answer: str) -> list[int]:
    """After a chat's turn an answer begins by itself, after "A:" with a space."""
    ids: list[int] = model.tokenizer.encode(answer if model.pipeline.chat_template else f" {answer}")
    return ids


# --- Context-aware decoding: right and planted evidence ---------------------------------------------------------------


def read_cases(path: Path, count: int, seed: int) -> list[Case]:
    """`count` questions whose evidence is short, with right and altered evidence, as many of each article."""
    questions = [one for one in read_questions(path) if one.context and len(one.context) <= LONGEST]
    titles = sorted({one.entity for one in questions})
    return drawn(cases_of(questions, -(-count // len(titles)) + 1, seed, titles), count, f"decoding {seed}")


def context_aware(bench: Bench, setting: Setting) -> Result:
    """How often the answer is what the document says: the right one, or the value planted there; the strength chosen
    on other articles, by both together."""
    cases = read_cases(bench.file(SQUAD), setting.pick(9, 40, 200), bench.seed)
    chosen, told = split_by_entity([one.question for one in cases], SHARES, bench.seed)
    kinds: dict[str, Callable[[Case], Question]] = {
        "right": lambda one: one.question,
        "planted": lambda one: replace(one.question, context=one.altered, answers=(one.wrong.text,)),
    }

    def follows(rows: Sequence[int], kind: str, alpha: float) -> list[float]:
        return follow(bench.model, [kinds[kind](cases[row]) for row in rows], alpha)

    tried = {}
    for alpha in STRENGTHS:
        tried[str(alpha)] = float(np.mean([follows(chosen, kind, alpha) for kind in kinds]))
    setting.say(f"   context-aware decoding on {len(chosen)} questions: {tried}")
    groups = [cases[row].question.entity for row in told]
    found: Result = {}
    for kind in kinds:
        plain, other = follows(told, kind, 0.0), follows(told, kind, float(best(tried)))
        found[kind] = {
            **{"tried": tried, "chosen": best(tried), "chosen_on": len(chosen)},
            **paired(plain, other, groups, bench.seed),
        }
    return found


def follow(model: Model, questions: Sequence[Question], alpha: float) -> list[float]:
    """1 for each question whose evidence's answer is given, else 0; `alpha` 0 is plain decoding."""
    prompts = [ids_of(model, one, (), "with-evidence") for one in questions]
    without = [ids_of(model, replace(one, context=None), (), "bare") for one in questions]
    contrast = ContextAware(without, alpha) if alpha else None
    results = model.generate(prompts, max_new_tokens=_ANSWER, stop=STOP, contrast=contrast)
    return [float(is_right(one.text, each, lenient=True)) for one, each in zip(results, questions, strict=True)]
