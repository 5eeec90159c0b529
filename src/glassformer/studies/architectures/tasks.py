"""Made-up tasks of the study: far copies, recall by a key, and sentences whose meaning is the order of their words.

B is the number of examples in a batch. Every batch is a pure function of its arguments.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from glassformer.errors import InputError
from glassformer.text.tokenizer import BOS, EOS

N_SYMBOLS = N_KEYS = N_NOISE = 8
SYMBOL, KEY, NOISE = 4, 4 + N_SYMBOLS, 4 + N_SYMBOLS + N_KEYS
"""The first id of each kind, after the four special ones."""

VOCABULARY = NOISE + N_NOISE
"""How many ids `copied` and `recalled` use."""

N_COPIED = 2
"""Symbols to be copied."""

N_PAIRS = 3
"""Pairs of a key and a value."""


@dataclass(frozen=True)
class Sequences:
    """`source` [B, S] ends with eos, `target` [B, T + 1] is bos, the answer, eos. Nothing is padded.

    `needed` are the places of the source that hold what the answer is made of. What counts as right or wrong are
    the target's places `judged`: 0 is the first after bos.
    """

    source: Int[Tensor, "B S"]
    target: Int[Tensor, "B U"]
    needed: Int[Tensor, "B n"]
    judged: slice


def copied(distance: int, rows: int, seed: int, before: int | None = None) -> Sequences:
    """Symbols among distractors, to be repeated: `distance` distractors stand after them, and `before` before them.

    Unless given, `before` is as many: recurrent encoders read from both ends, and one of their readers would else meet
    the symbols last of all. Chance is 1 / 8. `InputError` for a negative distance.
    """
    before = distance if before is None else before
    random = _generator(seed, distance)
    symbols = SYMBOL + torch.randint(N_SYMBOLS, (rows, N_COPIED), generator=random)
    source = _ended(_distractors(before, rows, random), symbols, _distractors(distance, rows, random))
    needed = torch.arange(before, before + N_COPIED).expand(rows, -1)
    return Sequences(source, _answer(symbols), needed, slice(0, N_COPIED))


def recalled(distance: int, rows: int, seed: int) -> Sequences:
    """Pairs of a key and a value, `distance` distractors on either side; the target asks for the keys in another order.

    The target is key, value, key, value, …: a network reads a key and has to say its value. Keys and values of a row
    differ, and only the first value is judged, since those after it could be told by leaving out what was said. Chance
    is 1 / 8; who keeps the values, but not whose they are, is right in a third. `InputError` for a negative distance.
    """
    random = _generator(seed, distance)
    keys, values = (_distinct(n, N_PAIRS, rows, random) for n in (N_KEYS, N_SYMBOLS))
    pairs = torch.stack((KEY + keys, SYMBOL + values), -1)
    order = _distinct(N_PAIRS, N_PAIRS, rows, random)
    answer = pairs.gather(1, order[..., None].expand(-1, -1, 2)).flatten(1)
    source = _ended(_distractors(distance, rows, random), pairs.flatten(1), _distractors(distance, rows, random))
    return Sequences(source, _answer(answer), distance + 2 * order[:, :1] + 1, slice(1, 2))


QUESTIONS = ("who", "whom", "what")
FILLERS = ("he", "she", "me", "you", "them", "pie", "cake", "ball", "hat", "fish")
"""What may stand in each of the three places of a sentence; also the answers."""

_ADVERBS = ("today", "then", "again")
_VERBS = ("hit", "met", "saw")
WORDS = ("<pad>", *QUESTIONS, *_ADVERBS, *_VERBS, "with", "a", *FILLERS)
"""The words of `sentences` by their ids."""

LENGTH = 8
"""Tokens in the longest of `sentences`."""

_ID = {word: number for number, word in enumerate(WORDS)}
_HELD_OUT = 5
"""Of so many combinations of fillers, one is kept for testing."""


@dataclass(frozen=True)
class Asked:
    """Questions with a sentence, `ids` [B, T] padded on the right, and the filler that is the answer, by its number."""

    ids: Int[Tensor, "B T"]
    labels: Int[Tensor, B]


def sentences(rows: int, seed: int, held_out: bool = False) -> Asked:
    """ "who today he hit me with a pie" → he; "whom" → me, "what" → pie; the adverb is there in half of the rows.

    The fillers are three different ones in any order, so that each sentence has five more with the same words and other
    answers: who knows the words, but not their order, is right in a third. `held_out` are combinations of fillers that
    the others never have (those whose numbers' sum is a multiple of 5).
    """
    random = _generator(seed, int(held_out))
    fillers = _distinct(len(FILLERS), 3, 12 * rows, random)
    fillers = fillers[(fillers.sum(1) % _HELD_OUT == 0) == held_out][:rows]
    assert len(fillers) == rows
    question = torch.randint(3, (rows, 1), generator=random)
    adverb = _ID[_ADVERBS[0]] + torch.randint(len(_ADVERBS), (rows, 1), generator=random)
    verb = _ID[_VERBS[0]] + torch.randint(len(_VERBS), (rows, 1), generator=random)
    who, whom, what = (_ID[FILLERS[0]] + fillers).split(1, 1)
    with_, a, nothing = (torch.full((rows, 1), _ID[word]) for word in ("with", "a", WORDS[0]))
    asked = _ID[QUESTIONS[0]] + question
    short = torch.cat((asked, who, verb, whom, with_, a, what, nothing), 1)
    long = torch.cat((asked, adverb, who, verb, whom, with_, a, what), 1)
    ids = torch.where(torch.rand(rows, 1, generator=random) < 0.5, short, long)
    return Asked(ids, fillers.gather(1, question)[:, 0])


def _generator(*numbers: int) -> torch.Generator:
    """Random numbers that depend on all of these."""
    mixed = 0
    for number in numbers:
        mixed = (mixed * 1_000_003 + number) % 2**63
    return torch.Generator().manual_seed(mixed)


def _distractors(count: int, rows: int, random: torch.Generator) -> Int[Tensor, "B k"]:
    if count < 0:
        raise InputError(f"a distance is a number of positions, at least 0, got {count}.")
    return NOISE + torch.randint(N_NOISE, (rows, count), generator=random)


def _distinct(n: int, count: int, rows: int, random: torch.Generator) -> Int[Tensor, "B k"]:
    """`count` different numbers below n for each row, every choice and order as likely."""
    return torch.rand(rows, n, generator=random).argsort(1)[:, :count]


def _ended(*pieces: Tensor) -> Int[Tensor, "B S"]:
    return torch.cat((*pieces, torch.full((len(pieces[0]), 1), EOS)), 1)


def _answer(symbols: Tensor) -> Int[Tensor, "B U"]:
    return _ended(torch.full((len(symbols), 1), BOS), symbols)
