"""Prompt design, measured: the same questions bare, with leave to abstain, after examples, with evidence, and with
wrong evidence."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from glassformer.factuality.answering import records_of
from glassformer.factuality.calibration import Asking
from glassformer.factuality.labelling import asking_of
from glassformer.factuality.prompts import STOP, ids_of, shots_for
from glassformer.factuality.questions import Question, read_questions
from glassformer.studies.hallucination.bench import SHOTS, Bench
from glassformer.studies.hallucination.rates import OUTCOMES, RATES, difference_of, outcome_of, percent, share_of
from glassformer.studies.hallucination.wrong_evidence import Case, cases_of
from glassformer.studies.study import (
    Claim,
    Part,
    Picture,
    Result,
    Setting,
    Table,
    claim,
    matplotlib_figure,
    save_figure,
)

BARE, MAY, SHOWN, UNANSWERED, EVIDENCE, WRONG, SHOWN_EVIDENCE, SHOWN_WRONG = WAYS = (
    "bare",
    "may say “I don't know”",
    "examples",
    "examples, one “I don't know”",
    "with evidence",
    "with wrong evidence",
    "examples and evidence",
    "examples and wrong evidence",
)
EVIDENCES = ((EVIDENCE, WRONG), (SHOWN_EVIDENCE, SHOWN_WRONG))
SETS = {"squad": "SQuAD 1.1", "relations": "relations", "truthfulqa": "TruthfulQA"}
TOKENS = 32
"""An answer has at most so many: what chats begins with "The capital of …"."""

WORDS, POOL = 4, 120
"""Examples about texts have answers of so few words, and are chosen among so many."""

UNKNOWABLE = Question("unknowable", "What did my neighbour dream of last Tuesday?", ("I don't know",))
"""What stands in the place of the second of three examples."""


def part(bench: Bench) -> Part:
    """The part of the study."""
    return Part(
        name="prompting",
        title="What the wording of the prompt changes",
        question=(
            "The same questions are put in several ways. Which of them makes the model right more often, which makes "
            "it say that it does not know, and which makes it wrong less often? And what does it do with a text that "
            "says what is not so?"
        ),
        method=(
            "SQuAD 1.1 questions whose answer is a number, a date or a name, evenly from its articles, are asked in "
            f"all ways: {'; '.join(WAYS)}. Wrong evidence is the question's own passage with its answer's value, "
            "wherever it stands, replaced by another of the same kind from the same article (a place may stand for a "
            "person); it says none of the right answers. Relation questions, about subjects, are asked without "
            "evidence; TruthfulQA questions for abstention alone, for a match of words cannot judge its sentences. "
            f"Examples are {SHOTS} other questions with their answers: plain text, or with evidence earlier turns "
            "without theirs. All else goes through the chat template where the model has one. Greedy, one line, "
            f"{TOKENS} tokens at most. An answer is right if it gives the known answer in its line, not negated; "
            "it abstains if its words say that it does not know, or "
            "if it is empty; else it is wrong. The hallucination rate is the share of wrong answers in all questions. "
            "Intervals and paired differences to bare are over articles or subjects (bootstrap; Wilson's over "
            "questions where all have one outcome)."
        ),
        run=lambda setting: _run(bench, setting),
        draw=_draw,
        tables=_tables,
        claims=_claims,
    )


# --- Measuring --------------------------------------------------------------------------------------------------------


def _run(bench: Bench, setting: Setting) -> Result:
    squad = read_questions(bench.file("squad_v1.1/dev-v1.1.rebuilt.json"))
    relations = _some(bench.relation_questions(setting, 100), setting.pick(8, 40, 200), bench.seed)
    truthful = _some(read_questions(bench.file("truthfulqa/TruthfulQA.csv")), setting.pick(4, 12, 60), bench.seed)
    cases = cases_of(squad, setting.pick(2, 1, 3), bench.seed, sorted({one.entity for one in squad}))
    asked = {case.question.id for case in cases}
    others = [one for one in squad if one.id not in asked and len(one.answers[0].split()) <= WORDS]
    pool = _some(others, POOL, bench.seed)
    texts = {
        "squad": _answers_about_texts(bench, setting, cases, pool),
        "relations": _answers(bench, setting, relations, relations, (BARE, MAY, SHOWN, UNANSWERED)),
        "truthfulqa": _answers(bench, setting, truthful, truthful, (BARE, MAY)),
    }
    questions = {"squad": [case.question for case in cases], "relations": relations, "truthfulqa": truthful}
    return {
        "sets": {name: measured(questions[name], each) for name, each in texts.items()},
        "planted": {way: followed(cases, texts["squad"], right, way) for right, way in EVIDENCES},
        "examples": _examples(cases, texts["squad"]),
    }


def _some(questions: Sequence[Question], count: int, seed: int) -> list[Question]:
    return random.Random(f"prompting {seed}").sample(questions, min(count, len(questions)))


def _answers(
    bench: Bench, setting: Setting, questions: Sequence[Question], pool: Sequence[Question], ways: Iterable[str]
) -> dict[str, list[str]]:
    """The texts of the answers, by way; the examples are of the pool."""
    few = asking_of(pool, Asking("few-shot", SHOTS, bench.seed, TOKENS))
    put: dict[str, Callable[[], list[str]]] = {
        BARE: lambda: _texts(bench, setting, questions, Asking("bare", 0, bench.seed, TOKENS)),
        MAY: lambda: _texts(bench, setting, questions, Asking("may-abstain", 0, bench.seed, TOKENS)),
        SHOWN: lambda: _texts(bench, setting, questions, few),
        UNANSWERED: lambda: _after_unanswered(bench, questions, few),
    }
    found = {}
    for way in ways:
        setting.say(f"   {len(questions)} questions, {way}")
        found[way] = put[way]()
    return found


def _answers_about_texts(
    bench: Bench, setting: Setting, cases: Sequence[Case], pool: Sequence[Question]
) -> dict[str, list[str]]:
    """The same, and with the passage, as it is and with the planted value."""
    found = _answers(bench, setting, [case.question for case in cases], pool, (BARE, MAY, SHOWN, UNANSWERED))
    for right, wrong in EVIDENCES:
        asking = Asking("with-evidence", SHOTS if right == SHOWN_EVIDENCE else 0, bench.seed, TOKENS)
        asking = asking_of(pool, asking)
        for way in (right, wrong):
            setting.say(f"   {len(cases)} questions, {way}")
            shown = [replace(case.question, context=case.true if way == right else case.altered) for case in cases]
            found[way] = _texts(bench, setting, shown, asking)
    return found


def _texts(bench: Bench, setting: Setting, questions: Sequence[Question], asking: Asking) -> list[str]:
    return [one.record.text.strip() for one in bench.answered(questions, asking, setting)]


def _after_unanswered(bench: Bench, questions: Sequence[Question], asking: Asking) -> list[str]:
    """The answers after the same examples, but for the second: that is `UNKNOWABLE`."""
    prompts, groups = [], []
    for question in questions:
        shots = shots_for(question, asking.shots, asking.count, asking.seed)
        shots[1] = replace(UNKNOWABLE, relation=question.relation)
        prompts.append(ids_of(bench.model, question, shots, "few-shot"))
        groups.append(tuple(shot.id for shot in shots))
    found: dict[int, str] = {}
    for numbers, records in records_of(bench.model, prompts, groups, max_new_tokens=TOKENS, stop=STOP):
        found |= {number: one.text.strip() for number, one in zip(numbers, records, strict=True)}
    return [found[row] for row in range(len(questions))]


def measured(questions: Sequence[Question], texts: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Outcomes by way, their rates, and the paired differences of the rates to those of `BARE`."""
    tallies = {way: [outcome_of(*pair) for pair in zip(each, questions, strict=True)] for way, each in texts.items()}
    entities = [one.entity.casefold() for one in questions]
    ways: dict[str, Any] = {}
    for way, tally in tallies.items():
        ways[way] = {
            "counts": {name: tally.count(name) for name in OUTCOMES},
            "rates": {rate: share_of(tally, rate, entities) for rate in RATES},
            "differences": {rate: difference_of(tally, tallies[BARE], rate, entities) for rate in RATES},
        }
    return {"n": len(questions), "entities": len(set(entities)), "ways": ways}


def followed(
    cases: Sequence[Case], texts: Mapping[str, Sequence[str]], evidence: str = EVIDENCE, wrong: str = WRONG
) -> dict[str, Any]:
    """What wrong evidence does: how often the planted value is given with it, of all questions and of those answered;
    how often bare, by chance; and how much more often than half as often as the right value with right evidence."""
    entities = [case.question.entity.casefold() for case in cases]
    planted = [replace(case.question, answers=(case.wrong.text,)) for case in cases]
    bare, given = (list(map(outcome_of, texts[way], planted)) for way in (BARE, wrong))
    right = [outcome_of(text, case.question) for text, case in zip(texts[evidence], cases, strict=True)]
    answered = [row for row, one in enumerate(given) if one != "abstains"]
    return {
        "given": share_of(given, "accuracy", entities),
        "of answers": share_of([given[row] for row in answered], "accuracy", [entities[row] for row in answered]),
        "by chance": share_of(bare, "accuracy", entities),
        "beyond half": difference_of(given, right, "accuracy", entities, 0.5),
    }


def _examples(cases: Sequence[Case], texts: Mapping[str, Sequence[str]], count: int = 4) -> list[dict[str, Any]]:
    """The first questions, with what was answered in every way."""
    return [
        {
            "question": case.question.question,
            "answer": case.right.text,
            "planted": case.wrong.text,
            "said": {way: each[row] for way, each in texts.items()},
        }
        for row, case in enumerate(cases[:count])
    ]


# --- Showing ----------------------------------------------------------------------------------------------------------


def _tables(result: Result) -> list[Table]:
    tables = []
    for name, title in SETS.items():
        found = result["sets"][name]
        rates = ("abstention",) if name == "truthfulqa" else tuple(RATES)
        about = f"{title}: {found['n']} questions, {found['entities']} {'articles' if name == 'squad' else 'subjects'}"
        for what, key in (("", "rates"), (", less that of the bare questions (paired)", "differences")):
            rows = [
                (way, *(percent(each[key][rate], bool(what)) for rate in rates))
                for way, each in found["ways"].items()
                if not what or way != BARE
            ]
            tables.append(Table(f"{about}{what}, in % [95 %]", ("way", *rates), tuple(rows)))
    return [*tables, _planted_table(result), _said_table(result)]


def _planted_table(result: Result) -> Table:
    ways = tuple(result["planted"])
    rates = [result["sets"]["squad"]["ways"][way]["rates"] for way in ways]
    found = list(result["planted"].values())
    rows = (
        ("the planted value", *(percent(each["given"]) for each in found)),
        ("the planted value, of the answers that do not abstain", *(percent(each["of answers"]) for each in found)),
        ("the right value all the same", *(percent(each["accuracy"]) for each in rates)),
        ("“I don't know”", *(percent(each["abstention"]) for each in rates)),
        ("for comparison: the planted value, bare", *(percent(each["by chance"]) for each in found)),
    )
    return Table("What is answered, in % [95 %]", ("answer", *ways), rows)


def _said_table(result: Result) -> Table:
    rows = []
    for one in result["examples"]:
        asked = f"{one['question']} ({one['answer']}; planted: {one['planted']})"
        rows += [(asked if not number else "", way, text) for number, (way, text) in enumerate(one["said"].items())]
    return Table("The first questions and what was answered", ("question", "way", "answer"), tuple(rows))


def _draw(result: Result, folder: Path) -> list[Picture]:
    """Stacked bars: of each way the shares of right answers, abstentions and wrong answers."""
    sizes = [len(result["sets"][name]["ways"]) for name in SETS]
    figure = matplotlib_figure(8, 1.8 + 0.36 * sum(sizes))
    colours = {"right": "C2", "abstains": "0.8", "wrong": "C3"}
    for axes, (name, title) in zip(figure.subplots(3, height_ratios=sizes, sharex=True), SETS.items(), strict=True):
        found = result["sets"][name]
        for place, each in enumerate(found["ways"].values()):
            left = 0.0
            for kind in OUTCOMES:
                share = each["counts"][kind] / found["n"]
                unjudged = name == "truthfulqa" and kind != "abstains"
                axes.barh(place, share, left=left, color="C0" if unjudged else colours[kind], height=0.75)
                left += share
        axes.set_yticks(range(len(found["ways"])), found["ways"], fontsize=8)
        axes.invert_yaxis()
        axes.set_xlim(0, 1)
        axes.set_title(f"{title} (n = {found['n']})", fontsize=9, loc="left")
    axes.set_xlabel("share of the questions")
    _legend(figure, {"right": "C2", "abstains": "0.8", "wrong": "C3", "answers, not judged": "C0"})
    caption = (
        "What comes of the same questions put in several ways. "
        + "; ".join(f"{title}: n = {result['sets'][name]['n']}" for name, title in SETS.items())
        + ". With wrong evidence “right” is the real answer, which the text does not say."
    )
    return [save_figure(figure, folder, "prompting", caption)]


def _legend(figure: Any, colours: Mapping[str, str]) -> None:
    from matplotlib.patches import Patch

    figure.legend(
        handles=[Patch(color=colour, label=name) for name, colour in colours.items()],
        loc="outside upper center",
        ncols=len(colours),
        fontsize=8,
    )


# --- Claims -----------------------------------------------------------------------------------------------------------

BOTH = ("squad", "relations")


def _claims(result: Result) -> list[Claim]:
    return [
        _changed(result, "Evidence raises accuracy.", EVIDENCE, "accuracy", up=True, sets=("squad",)),
        _changed(
            result, "Being told that it may abstain lowers the hallucination rate.", MAY, "hallucination rate", up=False
        ),
        _changed(
            result,
            "Being told that it may abstain, it abstains where it would be wrong: of what it still answers, less is "
            "wrong.",
            MAY,
            "wrong of the answers",
            up=False,
        ),
        _changed(result, "Examples raise accuracy.", SHOWN, "accuracy", up=True),
        _changed(
            result, "One example of “I don't know” lowers the hallucination rate.", UNANSWERED, "hallucination rate",
            up=False,
        ),
        _followed(result),
        _changed(result, "Wrong evidence is worse than none.", WRONG, "accuracy", up=False, sets=("squad",)),
    ]  # fmt: skip


def _changed(result: Result, text: str, way: str, rate: str, *, up: bool, sets: tuple[str, ...] = BOTH) -> Claim:
    """Whether a rate differs from that of the bare questions, in this direction, in all of these sets."""
    rule = (
        f"The 95 % interval of the paired difference ({rate}, {way}, less bare) lies {'above' if up else 'below'} 0"
        f"{' for SQuAD and for the relations' if len(sets) > 1 else ''}."
    )
    said, holds = [], []
    for name in sets:
        found = result["sets"][name]
        difference = found["ways"][way]["differences"][rate]
        rates = [percent(found["ways"][each]["rates"][rate]) for each in (BARE, way)]
        said.append(f"{SETS[name]}: {rates[0]} % bare, {rates[1]} % {way}, difference {percent(difference, True)}")
        holds.append(None if difference is None else difference[1] > 0 if up else difference[2] < 0)
    missing = None in holds
    return claim(text, rule, f"{'; '.join(said)} ({_sizes(result, sets)}).", None if missing else all(holds))


def _followed(result: Result) -> Claim:
    found = result["planted"][WRONG]
    right = result["sets"]["squad"]["ways"][EVIDENCE]["rates"]["accuracy"]
    return claim(
        "Wrong evidence is followed.",
        "The planted value is given more than half as often as the right value is with right evidence: the 95 % "
        "interval of the paired difference (share of the planted value less half the accuracy with evidence) lies "
        "above 0.",
        f"the planted value {percent(found['given'])} %, without evidence {percent(found['by chance'])} %; with "
        f"right evidence the right value {percent(right)} %; difference {percent(found['beyond half'], True)} "
        f"({_sizes(result, ('squad',))}).",
        found["beyond half"] is not None and found["beyond half"][1] > 0,
    )


def _sizes(result: Result, sets: Iterable[str]) -> str:
    return ", ".join(f"n = {result['sets'][name]['n']}" for name in sets)
