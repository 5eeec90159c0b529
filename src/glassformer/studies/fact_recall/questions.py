"""What a model is asked: facts of a file with shots of all answers before them, and facts of quite another kind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from glassformer.errors import InputError
from glassformer.interpret.facts import Fact, Facts, facts
from glassformer.interpret.shots import after_shots, choose_shots, lines_of_shots
from glassformer.studies.fact_recall.predictions import IN_CLASS

MOST_SHOTS = 12
"""With more answers than this, prompts begin with as many shots of the rarest ones instead of one of each."""
RARE_SHOTS = 4

# fmt: off
OPPOSITES: tuple[tuple[str, str], ...] = (
    ("hot", "cold"), ("big", "small"), ("tall", "short"), ("fast", "slow"), ("happy", "sad"), ("young", "old"),
    ("light", "dark"), ("rich", "poor"), ("strong", "weak"), ("early", "late"), ("open", "closed"), ("full", "empty"),
    ("wet", "dry"), ("hard", "soft"), ("good", "bad"), ("high", "low"), ("near", "far"), ("clean", "dirty"),
    ("loud", "quiet"), ("heavy", "light"), ("thick", "thin"), ("wide", "narrow"), ("deep", "shallow"),
    ("up", "down"), ("day", "night"), ("black", "white"), ("love", "hate"), ("war", "peace"), ("win", "lose"),
    ("buy", "sell"), ("push", "pull"), ("begin", "end"), ("friend", "enemy"), ("summer", "winter"), ("north", "south"),
    ("east", "west"), ("true", "false"), ("inside", "outside"), ("sweet", "sour"), ("alive", "dead"),
    ("rough", "smooth"), ("left", "right"),
)
# fmt: on


def asked_of(
    path: str | Path,
    template: str | None = None,
    shots: int | None = None,
    seed: int = 0,
    relation: str | None = None,
    least: int = IN_CLASS,
) -> Facts:
    """The facts of a file (`interpret.facts.facts`) whose answers have at least `least` facts there, ready to be asked.

    `shots` facts with their answers stand before every prompt: by default one of each answer, so that they favour
    none, or with more than `MOST_SHOTS` answers some of the rarest, whose facts are then left out. Without a template
    the file's own prompts are taken. Raises `InputError` as `facts` does, and where fewer than two answers are left.
    """
    found = facts(path, template, relation=relation, seed=seed)
    frequent = found.frequent(least)
    if len(frequent.classes) < 2:
        most = ", ".join(f"{name} {count}" for name, count in found.classes.most_common(3))
        raise InputError(f"{path}: at least two answers must have {least} facts; the most frequent ones have: {most}.")
    if shots is None and len(frequent.classes) > MOST_SHOTS:
        shots = RARE_SHOTS
    if shots == 0:
        return replace(frequent, dropped=found.dropped)
    if shots is not None and shots < len(frequent.classes):
        rare = facts(path, template, shots, seed, relation)
        return replace(rare.frequent(least), dropped=rare.dropped)
    return _after_all(frequent, len(frequent.classes) if shots is None else shots, seed, found.dropped)


def _after_all(given: Facts, count: int, seed: int, dropped: Mapping[str, int]) -> Facts:
    """The facts after shots of all answers alike; facts that serve as shots are not asked."""
    before = choose_shots(given.items, count, seed)
    shown = lines_of_shots(before)
    left = tuple(after_shots(fact, shown) for fact in given if fact not in before)
    return Facts(left, tuple(before), {**dropped, "used as a shot": len(before)})


def opposites() -> Facts:
    """Facts that have nothing to do with others: which word is the opposite of which."""
    shown = "The opposite of true is false.\n"
    pairs = [(word, other) for word, other in OPPOSITES if word != "true"]
    return Facts(tuple(_opposite(shown, word, other) for word, other in pairs))


def _opposite(shown: str, word: str, other: str) -> Fact:
    prompt = f"{shown}The opposite of {word} is"
    return Fact(f"opposite-{word}", word, "opposite", prompt, (other,), len(shown) + len("The opposite of "))
