"""`glassformer demo`: the whole way on one machine, from nothing to a picture of what was learnt."""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from glassformer.cli.output import percent, put, put_json, say
from glassformer.errors import InputError

if TYPE_CHECKING:
    from glassformer.tasks.model import Model
    from glassformer.text.corpora import Pairs

RECIPE = "recipes/dates.toml"
SHOWN = ("de", "en", "ja", "ar_EG", "ru", "hi", "fi", "zh")
DRAWN = ("de", "ru")
LONGEST = 16  # tokens of a translation: an ISO date has ten characters, and what goes on is wrong

_NEXT = """
What to do next:
  more dates           glassformer translate --model {run} "24 juin 2031"
  your own files       glassformer train recipes/translation.toml --data.train P --data.valid Q --data.test R \\
                           --data.source en --data.target de     (P.en and P.de, aligned by line; or TSV, JSON Lines)
  a trained translator glassformer translate --model multi30k-en-de "A man in a blue shirt is riding a bike."
  whole experiments    recipes/*.toml, and: glassformer train --help
"""


@dataclass(frozen=True)
class Score:
    """Exact matches, over all dates and in each language."""

    right: dict[str, int]
    n: dict[str, int]
    seconds: float

    @property
    def share(self) -> float:
        return sum(self.right.values()) / sum(self.n.values())

    @property
    def by_language(self) -> dict[str, float]:
        """The worst first."""
        shares = {name: self.right[name] / n for name, n in self.n.items()}
        return dict(sorted(shares.items(), key=lambda item: (item[1], item[0])))


def demo(
    *,
    out: Annotated[
        Path | None,
        Parameter(help="The run's folder. Without it, runs/demo (or runs/demo-2, … where it exists)."),
    ] = None,
    steps: Annotated[int | None, Parameter(help="Training steps. Without it, as many as the recipe says.")] = None,
    json: Annotated[bool, Parameter(help="One JSON object on standard output.", negative="")] = False,
) -> None:
    """Train a translator of dates in 45 languages from nothing, and look at what it learnt.

    The dates are written as people write them ("Dienstag, 24. November 2026"; from CLDR) and become ISO dates. The
    model is tested on days that it never saw in any language. Needs no network and a few minutes on two cores.
    """
    import glassformer
    from glassformer.text.dates import dates_corpus

    folder = out if out is not None else free_folder(Path("runs") / "demo")
    overrides: dict[str, Any] = {} if steps is None else {"training.steps": steps}
    began = time.perf_counter()
    model = glassformer.train(RECIPE, run=folder, **overrides)
    seconds = time.perf_counter() - began
    pairs = dates_corpus("test")
    score, translations = measure(model, pairs)
    picture = _picture(model, pairs, folder / "alignment.png")
    if json:
        put_json(_record(folder, score, seconds, picture))
        return
    _show_lines(pairs, translations)
    _show_languages(score)
    if picture is not None:
        say(f"\nWhich characters each digit looked at: {picture}")
    say(f"trained in {seconds:.0f} s")
    put(f"exact match {percent(score.share)} (n = {sum(score.n.values())})")
    say(_NEXT.format(run=folder))


def measure(model: Model, pairs: Pairs) -> tuple[Score, list[str]]:
    """Greedy translations of all pairs, and how many are right in each language."""
    from glassformer.text.dates import language

    began = time.perf_counter()
    translations = [result.text for result in model.translate(pairs.source, beam=1, max_length=LONGEST)]
    seconds = time.perf_counter() - began
    right: dict[str, int] = defaultdict(int)
    n: dict[str, int] = defaultdict(int)
    for tag, wanted, got in zip(pairs.locales, pairs.target, translations, strict=True):
        n[language(tag)] += 1
        right[language(tag)] += got == wanted
    return Score(right, n, seconds), translations


def _show_lines(pairs: Pairs, translations: list[str]) -> None:
    say("\nDays it never saw:")
    for tag in SHOWN:
        row = _longest(pairs, tag)
        verdict = "" if translations[row] == pairs.target[row] else f"   (wrong: {pairs.target[row]})"
        put(f"  {pairs.source[row]}  →  {translations[row]}{verdict}")


def _show_languages(score: Score) -> None:
    shares = list(score.by_language.items())
    perfect = sum(share == 1 for _, share in shares)
    say(f"\n{perfect} of {len(shares)} languages without a mistake. The worst:")
    for name, share in shares[:5]:
        put(f"  {name:<12} {percent(share):>8}  (n = {score.n[name]})")


def _picture(model: Model, pairs: Pairs, path: Path) -> Path | None:
    """Alignments of dates with the right answer; None, with a word about it, where matplotlib is missing."""
    from glassformer.tasks.alignment import align, draw

    rows = [_longest(pairs, tag) for tag in DRAWN]
    try:
        return draw([align(model, pairs.source[row], pairs.target[row]) for row in rows], path)
    except InputError as error:
        say(f"No picture: {error}")
        return None


def _longest(pairs: Pairs, tag: str) -> int:
    """The row of a locale's longest date: one with weekday and month spelled out."""
    rows = [row for row, other in enumerate(pairs.locales) if other == tag]
    return max(rows, key=lambda row: len(pairs.source[row]))


def _record(folder: Path, score: Score, seconds: float, picture: Path | None) -> dict[str, Any]:
    worst = next(iter(score.by_language.items()))
    return {
        "exact_match": score.share,
        "n": sum(score.n.values()),
        "worst": {"language": worst[0], "exact_match": worst[1]},
        "languages": score.by_language,
        "training_seconds": round(seconds, 1),
        "translation_seconds": round(score.seconds, 1),
        "run": str(folder),
        "alignment": str(picture) if picture is not None else None,
    }


def free_folder(folder: Path) -> Path:
    """`folder`, or the first of `folder-2`, `folder-3`, … that does not exist."""
    number = 1
    free = folder
    while free.exists():
        number += 1
        free = folder.with_name(f"{folder.name}-{number}")
    return free
