"""Every score of the same answers as one column of numbers: those of one pass, asked once more, sampled, and learnt."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from glassformer.errors import InputError
from glassformer.factuality.attention_score import ATTENTION, attended
from glassformer.factuality.combining import FOLDS, combine
from glassformer.factuality.detection import auroc
from glassformer.factuality.labelling import Answered
from glassformer.factuality.one_more_call import ONE_MORE_CALL, ask_again
from glassformer.factuality.prompts import STOP
from glassformer.factuality.questions import split_by_entity
from glassformer.factuality.records import Record, read_again
from glassformer.factuality.sampled import SAMPLED, draw
from glassformer.factuality.truth_probe import TruthProbe, fit
from glassformer.factuality.uncertainty import ONE_PASS, Score
from glassformer.tasks.model import Model

DEVELOPMENT = 0.25
"""The share of the questions, by entity, on which layers and the best scores are chosen. Nothing is reported on it."""

STRENGTHS = (1.0, 0.1, 0.01)
_AT_ONCE = 32


@dataclass(frozen=True)
class Column:
    """A score of the answers `rows`, higher = more uncertain. `cost` is "one pass", "one more call", "sampled" or
    "learnt": fitted to labels of other entities; `paper` is "" for a baseline."""

    name: str
    cost: str
    paper: str
    rows: tuple[int, ...]
    values: tuple[float, ...]

    def at(self, rows: Sequence[int]) -> NDArray[np.float64]:
        """The values of these answers."""
        place = dict(zip(self.rows, self.values, strict=True))
        return np.array([place[row] for row in rows])


@dataclass(frozen=True, eq=False)
class Answers:
    """Answers with their labels, and which of them choose (`development`) and which are reported (`test`)."""

    all: Sequence[Answered]
    development: frozenset[int]
    test: frozenset[int]

    @classmethod
    def split(cls, answered: Sequence[Answered], seed: int) -> Answers:
        """By entity."""
        parts = split_by_entity([one.question for one in answered], (DEVELOPMENT, 1 - DEVELOPMENT), seed)
        return cls(answered, *map(frozenset, parts))

    def wrong(self, rows: Sequence[int]) -> NDArray[np.float64]:
        """1 for a wrong answer."""
        return np.array([float(not self.all[row].right) for row in rows])

    def entities(self, rows: Sequence[int]) -> list[str]:
        """What each is about."""
        return [self.all[row].question.entity.casefold() for row in rows]

    def records(self, rows: Sequence[int]) -> list[Record]:
        """What the model wrote."""
        return [self.all[row].record for row in rows]


def subsets(count: int, sizes: Sequence[int], seed: int) -> list[tuple[int, ...]]:
    """Rows drawn by the seed, `sizes` of them: each set lies in every larger one, so that all can be compared."""
    order = random.Random(f"detection {seed}").sample(range(count), count)
    return [tuple(sorted(order[:size])) for size in sizes]


def one_pass(answers: Answers) -> list[Column]:
    """What the records tell by themselves, of all answers."""
    rows = tuple(range(len(answers.all)))
    return _columns(ONE_PASS, rows, answers.records(rows))


def attention(answers: Answers, rows: tuple[int, ...], model: Model, say: Callable[[str], None]) -> list[Column]:
    """The scores of attention, by another pass over each."""
    found = []
    for first in range(0, len(rows), 4 * _AT_ONCE):
        found += attended(model, answers.records(rows[first : first + 4 * _AT_ONCE]))
        say(f"   attention of {len(found)} of {len(rows)} answers read")
    return _columns(ATTENTION, rows, found)


def asked_again(answers: Answers, rows: tuple[int, ...], model: Model) -> list[Column]:
    """The scores of one more call."""
    questions = [answers.all[row].question.question for row in rows]
    return _columns(ONE_MORE_CALL, rows, ask_again(model, answers.records(rows), questions))


def sampled(
    answers: Answers, rows: tuple[int, ...], model: Model, embedder: Model | None, count: int, longest: int, seed: int,
    say: Callable[[str], None],
) -> list[Column]:  # fmt: skip
    """The scores of `count` more answers, of at most `longest` tokens, drawn at temperature 1."""
    found = []
    for first in range(0, len(rows), _AT_ONCE):
        records = answers.records(rows[first : first + _AT_ONCE])
        settings = {"max_new_tokens": longest, "stop": STOP, "seed": seed + first}
        found += draw(model, records, count, embedder=embedder, **settings)  # type: ignore[arg-type]
        say(f"   {count} samples each of {len(found)} of {len(rows)} answers drawn")
    names = [name for name in SAMPLED if embedder is not None or name != "embedding consistency"]
    return _columns({name: SAMPLED[name] for name in names}, rows, found)


def together(answers: Answers, name: str, paper: str, columns: Sequence[Column], seed: int) -> Column:
    """Scores of the same answers as one, each answer's by a combination that was fitted without its entity."""
    rows = columns[0].rows
    matrix = np.array([column.at(rows) for column in columns]).T
    folds = np.empty(len(rows), dtype=int)
    questions = [answers.all[row].question for row in rows]
    for number, own in enumerate(split_by_entity(questions, [1.0] * FOLDS, seed)):
        folds[own] = number
    names = [column.name for column in columns]
    values = combine(names, matrix, [()] * len(rows), answers.wrong(rows), folds)[1]
    return Column(name, "learnt", paper, rows, tuple(values.tolist()))


def probes(
    answers: Answers, rows: tuple[int, ...], model: Model, layers: Sequence[int], seed: int, say: Callable[[str], None]
) -> tuple[list[Column], int]:
    """The truth probe's scores of all answers and those of the probe that reads the question alone, each answer's by a
    probe which has not seen its entity; and the layer whose states both read, the one with the best AUROC on the
    development answers among `rows`."""
    layer = _chosen(answers, rows, _read(answers, rows, model, layers, say), seed)
    every = tuple(range(len(answers.all)))
    records = _read(answers, every, model, [layer], say)[layer]
    found = []
    for part, name in (("answer", "truth probe"), ("question", "question only")):
        one = _fitted(answers, every, records, part, seed)
        found.append(Column(name, "learnt", one.score.paper, every, one.held_out))
    return found, layer


def _read(
    answers: Answers, rows: tuple[int, ...], model: Model, layers: Sequence[int], say: Callable[[str], None]
) -> Mapping[int, list[Record]]:
    """The records with the states of each layer, by one pass over each text."""
    found: dict[int, list[Record]] = {layer: [] for layer in layers}
    site = f"residual_post[{','.join(map(str, layers))}]"
    for first in range(0, len(rows), 4 * _AT_ONCE):
        for one in read_again(model, answers.records(rows[first : first + 4 * _AT_ONCE]), site):
            assert one.states is not None
            for layer, states in zip(layers, one.states.chunk(len(layers), 1), strict=True):
                found[layer].append(replace(one, states=states.clone()))
        say(f"   states of {len(found[layers[0]])} of {len(rows)} answers read")
    return found


def _chosen(answers: Answers, rows: tuple[int, ...], records: Mapping[int, list[Record]], seed: int) -> int:
    """The layer whose held-out scores are the best on development."""
    own = [place for place, row in enumerate(rows) if row in answers.development]
    wrong = answers.wrong([rows[place] for place in own])
    fitted = {layer: _fitted(answers, rows, given, "answer", seed) for layer, given in records.items()}
    return max(fitted, key=lambda layer: auroc([fitted[layer].held_out[place] for place in own], wrong))


def _fitted(answers: Answers, rows: tuple[int, ...], records: list[Record], part: str, seed: int) -> TruthProbe:
    right = [answers.all[row].right for row in rows]
    entities = answers.entities(rows)
    return fit(records, right, entities, part=part, strengths=STRENGTHS, seed=seed)  # type: ignore[arg-type]


def _columns(scores: Mapping[str, Score], rows: tuple[int, ...], given: Sequence[object]) -> list[Column]:
    return [
        Column(one.name, one.passes, one.paper, rows, tuple(one.function(each) for each in given))
        for one in scores.values()
    ]


def embedder() -> Model | None:
    """all-MiniLM-L6-v2, where it is there."""
    import glassformer

    try:
        return glassformer.load("all-minilm-l6-v2")
    except InputError:
        return None


def layers_tried(model: Model) -> list[int]:
    """A third, a half and two thirds up the network, and its last layer."""
    count = model.config.n_decoder_layers
    return sorted({count // 3, count // 2, 2 * count // 3, count - 1})
