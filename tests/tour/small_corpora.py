"""The corpora of docs/data.md in their layout, but a few kilobytes each and invented from beginning to end."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from glassformer.training.recipes import read_recipe

_PEOPLE = ["Ada", "Bela", "Cyril", "Dora", "Emil", "Frida"]
_PLACES = ["Lisbon", "Bremen", "Turin", "Cork", "Ghent", "Malmo"]
_THINGS = ["a bridge", "a clock", "a lighthouse", "a garden", "a library", "a mill"]
_WORDS = ["river", "stone", "light", "road", "house", "winter", "bread", "market", "window", "music", "boat", "letter"]
_PRAISE, _BLAME = ["gripping", "funny", "warm", "clever"], ["dull", "clumsy", "cold", "empty"]


def write_data(folder: Path) -> Path:
    """All of it below `folder`, which is made; the folder again. Equal each time."""
    draw = random.Random(0)
    _write(folder / "tinyshakespeare" / "input.txt", _verses(draw, 600))
    for split, count in (("train", 120), ("dev", 24), ("test", 24)):
        _write(folder / "sst2" / f"{split}.tsv", _reviews(draw, count))
        _write(folder / "aeslc" / f"{split}.jsonl", _mails(draw, count // 6))
    for split, count in (("train", 30), ("dev", 8)):
        _write(folder / "wikipedia" / f"{split}.txt", _articles(draw, count))
    titles = _titles("squad")
    for split, names in (("train", [*titles, "Mills", "Bridges", "Clocks"]), ("dev", ["Roads", "Rivers"])):
        _write(folder / "squad_v1.1" / f"{split}-v1.1.rebuilt.json", _squad(draw, names, refused=0.0))
    _write(folder / "squad_v2.0_dev" / "dev-v2.0.rebuilt.json", _squad(draw, _titles("squad-refusal"), refused=0.5))
    return folder


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _titles(recipe: str) -> list[str]:
    """The articles that a recipe of questions names: it wants all of them in its files."""
    data = read_recipe(Path("recipes") / f"{recipe}.toml").data
    return [*data.train_titles, *data.valid_titles, *data.test_titles]


def _some(draw: random.Random, least: int, most: int) -> str:
    return " ".join(draw.choice(_WORDS) for _ in range(draw.randint(least, most)))


def _lines(draw: random.Random, count: int, line: Callable[[random.Random], str]) -> str:
    return "".join(f"{line(draw)}\n" for _ in range(count))


def _verses(draw: random.Random, count: int) -> str:
    return _lines(draw, count, lambda draw: f"{draw.choice(_PEOPLE).upper()}:\nO {_some(draw, 4, 8)}!\n")


def _reviews(draw: random.Random, count: int) -> str:
    def review(draw: random.Random) -> str:
        good = draw.randrange(2)
        return f"a {draw.choice(_PRAISE if good else _BLAME)} film about {_some(draw, 1, 4)} .\t{good}"

    return _lines(draw, count, review)


def _mails(draw: random.Random, count: int) -> str:
    def mail(draw: random.Random) -> str:
        what = _some(draw, 2, 3)
        body = f"Dear {draw.choice(_PEOPLE)},\n\nplease look at the {what} before noon, with {_some(draw, 3, 9)}.\n"
        subjects = {name: f"{what} today" for name in ("ann0", "ann1", "ann2")}
        return json.dumps({"id": str(draw.random()), "body": body, "subject": what, **subjects})

    return _lines(draw, count, mail)


def _articles(draw: random.Random, count: int) -> str:
    def article(draw: random.Random) -> str:
        paragraphs = (_paragraph(draw)[0] for _ in range(3))
        return "\n".join((f"= {draw.choice(_PLACES)} =", *paragraphs))

    return _lines(draw, count, article)


def _paragraph(draw: random.Random) -> tuple[str, str, str, str]:
    """A text, and who built what where in it."""
    person, thing, place = draw.choice(_PEOPLE), draw.choice(_THINGS), draw.choice(_PLACES)
    text = f"The {_some(draw, 2, 6)} was old. {person} built {thing} in {place}, by the {_some(draw, 2, 6)}."
    return text, person, thing, place


def _squad(draw: random.Random, titles: Iterable[str], refused: float) -> str:
    """Two paragraphs an article, a question each about who and where; some of the latter without an answer."""

    def paragraph() -> dict[str, Any]:
        text, person, thing, place = _paragraph(draw)
        none = draw.random() < refused
        asked = [(f"Who built {thing}?", person), (f"When did {person} sell it?" if none else "Where is it?", place)]
        qas = [
            {"id": str(draw.random()), "question": question, "is_impossible": none and answer == place, "answers": []}
            for question, answer in asked
        ]
        for entry, (_, answer) in zip(qas, asked, strict=True):
            if not entry["is_impossible"]:
                entry["answers"] = [{"text": answer, "answer_start": text.index(answer)}]
        return {"context": text, "qas": qas}

    articles = [{"title": title, "paragraphs": [paragraph(), paragraph()]} for title in titles]
    return json.dumps({"version": "small", "data": articles})
