"""What the part "heads" says, and its tables: from the result alone."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean
from typing import Any

from glassformer.studies.architectures.heads.drawing import shares
from glassformer.studies.architectures.heads.words import RELATIONS, TRANSLATION
from glassformer.studies.study import Claim, Result, Table, claim
from glassformer.tasks.intervals import bootstrap

HIGHER = 0.05
"""A loss is higher where it is so by this share of the other."""

SEVERAL = 2
"""From so many seeds on, something is said about training."""

APART = 0.3
"""Heads look differently widely where their entropies, as shares, are so far apart."""

SHARPER = 0.1
"""A network looks more narrowly where its heads' mean entropy, as a share, is lower by this."""

MOST = 3
"""Of the four relations, so many are most."""


def claims(result: Result) -> Sequence[Claim]:
    """How many heads, whether they differ and have learnt to, and what they relate."""
    return [
        _count(result["counts"], 1, "One head learns less than four of a quarter of its width (Vaswani et al. 2017)."),
        _count(result["counts"], 8, "Too many heads hurt: eight learn less than four (Vaswani et al. 2017)."),
        _differ(result),
        _learnt(result),
        *(_finds(result, name) for name in RELATIONS),
        _translator(result),
        _aligns(result),
    ]


def _count(counts: dict[str, Any], heads: int, text: str) -> Claim:
    losses = {row["heads"]: row["loss"] for row in counts["rows"]}
    known = {heads, 4} <= losses.keys() and counts["seeds"] >= SEVERAL
    holds = all(a > b * (1 + HIGHER) for a, b in zip(losses[heads], losses[4], strict=True)) if known else None
    measured = "; ".join(f"{count} head(s): {', '.join(f'{x:.3f}' for x in each)}" for count, each in losses.items())
    return claim(
        text,
        f"After equal steps at equal d_model, the test loss is higher with {heads} head(s) than with 4 by more than "
        f"{HIGHER:.0%}, in every seed; at least {SEVERAL} seeds.",
        f"{measured} nats a character ({counts['seeds']} seed(s), {counts['steps']} steps, n = {counts['test_pairs']})",
        holds,
    )


def _differ(result: Result) -> Claim:
    entropy = _entropies(result, "encoder")
    return claim(
        "The heads of one network look differently widely.",
        "Among the heads of the translator's encoder, the mean entropies (as shares of that of looking everywhere "
        f"alike) lie at least {APART:g} apart.",
        f"from {min(entropy):.2f} to {max(entropy):.2f} ({len(entropy)} heads, "
        f"n = {result['attention']['encoder']['sentences']} sentences)",
        max(entropy) - min(entropy) >= APART,
    )


def _learnt(result: Result) -> Claim:
    trained, fresh = _entropies(result, "encoder"), _entropies(result, "untrained")
    return claim(
        "Heads look more narrowly after training than before.",
        f"The mean entropy of the encoder's heads, as a share, is lower than that of the same network with fresh "
        f"weights by at least {SHARPER:g}.",
        f"trained {mean(trained):.2f}, fresh {mean(fresh):.2f} ({len(trained)} heads each, one seed)",
        mean(fresh) - mean(trained) >= SHARPER,
    )


def _entropies(result: Result, kind: str) -> list[float]:
    return [value for layer in result["attention"][kind]["habits"]["entropy"] for value in layer]


_RULE = (
    "The head chosen on one half of the sentences points at the right word more often on the other half (and the other "
    "way round) than the fixed offset chosen in the same way: the bootstrap interval of 95 % of the paired difference "
    "lies above 0"
)


def _finds(result: Result, name: str) -> Claim:
    first, second = name.split("-")
    found = _relation(result, "sentence encoder", name)
    return claim(
        f"A head of MiniLM looks from the {first} to its {second}, better than a fixed offset would.",
        f"{_RULE}.",
        "not measured: MiniLM is not installed" if found is None else in_words(found),
        None if found is None else beats(found),
    )


def _translator(result: Result) -> Claim:
    found = {name: _relation(result, "encoder", name) for name in RELATIONS}
    measured = "; ".join(f"{name}: {in_words(each)}" for name, each in found.items() if each is not None)
    enough = all(each is not None for each in found.values())
    return claim(
        "The small translator's encoder has such heads too, for most relations.",
        f"{_RULE}, for at least {MOST} of {len(RELATIONS)} relations.",
        measured,
        sum(beats(each) for each in found.values() if each is not None) >= MOST if enough else None,
    )


def _aligns(result: Result) -> Claim:
    found = _relation(result, "cross-attention", TRANSLATION)
    return claim(
        "A head of the translator's cross-attention finds the word that is being translated.",
        f"{_RULE}.",
        "not measured" if found is None else in_words(found),
        None if found is None else beats(found),
    )


def _relation(result: Result, kind: str, name: str) -> dict[str, Any] | None:
    each = result["attention"].get(kind)
    found: dict[str, Any] | None = None if each is None else each["relations"].get(name)
    return found


def difference(found: dict[str, Any]) -> tuple[float, float, float]:
    """How much more often the head is right than the offset, as a share, with its bootstrap interval of 95 %."""
    equal = found["both"] + found["neither"]
    values = [1.0] * found["head_only"] + [-1.0] * found["offset_only"] + [0.0] * equal
    interval = bootstrap(values)
    return mean(values), interval.low, interval.high


def beats(found: dict[str, Any]) -> bool:
    """Whether the head is right more often than the offset, beyond chance."""
    return difference(found)[1] > 0


def in_words(found: dict[str, Any]) -> str:
    """Both shares with Wilson intervals, their difference with its own, and who was chosen."""
    head, offset, gap = shares(found, "head_only"), shares(found, "offset_only"), difference(found)
    who = " and ".join(dict.fromkeys(f"{layer}.{number}" for layer, number in found["chosen"]["heads"]))
    places = " and ".join(dict.fromkeys(f"{each:+d}" for each in found["chosen"]["offsets"]))
    return (
        f"head {who} {_percent(head)}, offset {places} {_percent(offset)}, difference "
        f"{100 * gap[0]:+.0f} points [{100 * gap[1]:+.0f}, {100 * gap[2]:+.0f}], n = {found['n']}"
    )


def _percent(share: tuple[float, float, float]) -> str:
    return f"{share[0]:.0%} [{share[1]:.0%}, {share[2]:.0%}]"


_NAMES = {
    "encoder": "translator, encoder",
    "cross-attention": "translator, cross-attention",
    "untrained": "the same encoder, fresh weights",
    "sentence encoder": "MiniLM",
}


def tables(result: Result) -> Sequence[Table]:
    """Losses by the number of heads, and relations by kind of attention."""
    counts = [
        (
            str(row["heads"]),
            ", ".join(f"{each:.3f}" for each in row["loss"]),
            ", ".join(f"{each:.1%}" for each in row["characters"]),
            ", ".join(f"{each:.1%}" for each in row["exact"]),
        )
        for row in result["counts"]["rows"]
    ]
    relations = [
        (name, _NAMES[kind], str(found["n"]), *_row(found))
        for kind, each in result["attention"].items()
        for name, found in each["relations"].items()
    ]
    return [
        Table(
            f"Dates after {result['counts']['steps']} steps, each seed",
            ("heads", "loss (nats a character)", "characters right", "exact match"),
            tuple(counts),
        ),
        Table(
            "Relations: shares of instances, with Wilson intervals of 95 %",
            ("relation", "attention", "n", "best head", "right", "best offset", "right"),
            tuple(relations),
        ),
    ]


def _row(found: dict[str, Any]) -> tuple[str, str, str, str]:
    who = ", ".join(f"{layer}.{number}" for layer, number in found["chosen"]["heads"])
    places = ", ".join(f"{each:+d}" for each in found["chosen"]["offsets"])
    return who, _percent(shares(found, "head_only")), places, _percent(shares(found, "offset_only"))
