"""Question + answer → statement, by rules; and false statements by another value in the answer's place.

    python benchmarks/claims/rewriting.py SQUAD_DEV.json --part test > candidates.jsonl

What comes out is a draft: `claims.jsonl` is this, read statement by statement and corrected or dropped by hand.
"""

from __future__ import annotations

import argparse
import json
import random
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import glassformer as gf
from glassformer.factuality.numerals import Numeral
from glassformer.factuality.values import Value, find_values, same

PARTS = {
    # Articles that taught the reader nothing: those of 1.1 dev that are not in 2.0 dev, and the 18 test articles of
    # recipes/squad-refusal.toml.
    "development": re.findall(
        r"\S+",
        "American_Broadcasting_Company Apollo_program Chloroplast Doctor_Who Genghis_Khan Kenya Martin_Luther "
        "Newcastle_upon_Tyne Nikola_Tesla Super_Bowl_50 Teacher United_Methodist_Church "
        "Victoria_and_Albert_Museum",
    ),
    "test": re.findall(
        r"\S+",
        "Amazon_rainforest Civil_disobedience Construction Ctenophora European_Union_law Force Harvard_University "
        "Islamism Jacksonville,_Florida Oxygen Pharmacy Private_school Rhine Sky_(United_Kingdom) "
        "Southern_California University_of_Chicago Victoria_(Australia) Warsaw",
    ),
}
PAST = dict(
    pair.split(":")
    for pair in re.findall(
        r"\S+",
        "be:was become:became begin:began break:broke bring:brought build:built buy:bought choose:chose come:came "
        "cost:cost draw:drew drive:drove eat:ate fall:fell feel:felt fight:fought find:found flow:flowed fly:flew "
        "get:got give:gave go:went grow:grew have:had hear:heard hold:held keep:kept know:knew lead:led "
        "leave:left lose:lost make:made marry:married mean:meant meet:met pay:paid put:put read:read ride:rode "
        "rise:rose run:ran say:said see:saw sell:sold send:sent set:set show:showed shut:shut sing:sang "
        "speak:spoke spend:spent spread:spread stand:stood steal:stole take:took teach:taught tell:told "
        "think:thought throw:threw understand:understood win:won write:wrote",
    )
)
REGULAR = re.findall(
    r"\S+",
    "add adopt affect agree air allow announce appear apply approve argue arrest arrive ask attempt attend "
    "base belong borrow call capture cause cede celebrate change charge claim close collapse collect complete "
    "compose conquer consider contain continue contribute convert cover create cross cut debut decide declare "
    "define deliver demolish describe design destroy develop die discover donate earn elect emerge employ "
    "enact enroll enter escape establish estimate excommunicate exist expand explain explore express face "
    "fail finish form found gain generate graduate happen help house identify ignite implement improve "
    "include increase inspire introduce invade invent invest join kill land last launch live locate lower "
    "marry measure merge move name need number occur offer open operate oppose order organize overthrow own "
    "pass perform pick plan play possess practice praise produce promise propose prove provide publish "
    "purchase raise rank reach receive recommend record reduce refer refuse reject release remain remove "
    "replace report represent require reside resign return reveal rule score serve settle share shoot sign "
    "start state stay stop study suffer suggest support surrender tie total transfer translate travel try "
    "turn use visit vote want warn watch work worry",
)


def past_of(verb: str) -> str | None:
    """The past of a verb that is known here."""
    if verb in PAST:
        return PAST[verb]
    if verb not in REGULAR:
        return None
    if verb.endswith("e"):
        return verb + "d"
    if verb.endswith("y") and verb[-2] not in "aeiou":
        return verb[:-1] + "ied"
    return verb + (verb[-1] if verb in ("plan", "stop", "transfer") else "") + "ed"


PASTS = {past for verb in [*PAST, *REGULAR] if (past := past_of(verb))}
IRREGULAR_PARTICIPLES = set(
    re.findall(
        r"\S+",
        "born built made held found known seen given written taken shown set led sold won lost sent paid spent "
        "drawn begun broken chosen come done driven eaten fallen flown gone grown hidden laid left met put read "
        "run said sung spoken stolen taught thought told thrown torn understood worn cut hit located able used "
        "available considered based",
    )
)


def _participle(tokens: list[str], first: int = 1) -> int | None:
    """The place of the participle that ends the subject of "was SUBJECT DONE …"."""
    for place in range(first, len(tokens)):
        word = tokens[place].strip(",")
        if word in IRREGULAR_PARTICIPLES or (word.islower() and re.fullmatch(r"\w{2,}ed", word)):
            return place
    return None


def _verb(tokens: list[str], first: int = 1) -> int | None:
    for place in range(first, len(tokens)):
        if past_of(tokens[place]) and tokens[place - 1].lower() not in ("the", "a", "an", "of", "to"):
            return place
    return None


def _declared(auxiliary: str, rest: str) -> tuple[str, str] | None:
    """Subject with verb, and what follows, of "did SUBJECT VERB …" or "was SUBJECT DONE …"."""
    tokens = rest.split()
    if auxiliary in ("did", "does", "do"):
        place = _verb(tokens)
        if place is None:
            return None
        verb = tokens[place]
        form = past_of(verb) if auxiliary == "did" else verb if auxiliary == "do" else _third(verb)
        return f"{' '.join(tokens[:place])} {form}", " ".join(tokens[place + 1 :])
    place = _participle(tokens)
    if place is None:
        return None
    return f"{' '.join(tokens[:place])} {auxiliary} {tokens[place]}", " ".join(tokens[place + 1 :])


def _third(verb: str) -> str:
    if verb == "have":
        return "has"
    return verb + ("es" if verb.endswith(("s", "sh", "ch", "x", "o")) else "s")


_AUX = r"(?P<aux>was|were|is|are|did|does|do|has|had|have|can|will)"
_WHEN = re.compile(
    r"^(?:when|(?:in |during |on |by )?(?:what|which) (?P<noun>year|century|decade|date|day|month)) "
    rf"{_AUX} (?P<rest>.+)$",
    re.I,
)
_WHERE = re.compile(
    r"^(?:where|(?P<prep>in|at|on|to|from) (?:what|which) (?P<noun>(?:\w+ )?(?:city|country|state|town|region|area|"
    rf"place|continent|county|stadium|ocean|sea|river))) {_AUX} (?P<rest>.+)$",
    re.I,
)
_WHO = re.compile(r"^who (?P<rest>(?!did |does |do |were the people).+)$", re.I)
_BY = re.compile(r"^who (?P<aux>was|were|is|are) (?P<rest>.+ by)$", re.I)
_MANY = re.compile(rf"^how (?:many|much) (?P<noun>[\w\s\-,]+?) {_AUX} (?P<rest>.+)$", re.I)
_MANY_VERB = re.compile(
    r"^how many (?P<noun>[\w\s\-]+?) (?P<rest>(?:live|attend|work|visit|make|speak|died|attended|lived|watched|won|"
    r"serve|served|took|use|play|compose|participated) .+)$",
    re.I,
)
_SHARE = re.compile(r"^(?:what|which) (?:percentage|percent|proportion|fraction) (?P<rest>of .+)$", re.I)
_IS_THE = re.compile(r"^what (?P<aux>is|was|are|were) (?P<rest>the .+)$", re.I)
_WHICH = re.compile(r"^(?:what|which) (?P<noun>(?:[\w'’\-]+ ){0,3}?[\w'’\-]+) (?P<verb>\w+) (?P<rest>.+)$", re.I)


def rewritten(question: str, answer: str) -> tuple[str, str] | None:
    """A statement with the answer marked {…}, and the name of the rule; None where no rule fits."""
    question = " ".join(question.replace("?", "").replace("''", '"').split()).rstrip(" .,")
    slot = "{" + answer + "}"
    if match := _WHEN.match(question):
        parts = _declared(match["aux"].lower(), match["rest"])
        if parts:
            return f"{parts[0]} {parts[1]} {_when(answer, match['noun'])} {slot}", "when"
    if match := _WHERE.match(question):
        parts = _declared(match["aux"].lower(), match["rest"])
        if parts:
            return f"{parts[0]} {parts[1]} {(match['prep'] or 'in').lower()} {slot}", "where"
    if (match := _BY.match(question)) and (parts := _declared(match["aux"].lower(), match["rest"])):
        return f"{parts[0]} {parts[1]} {slot}", "by"
    if match := _SHARE.match(question):
        return f"{slot} {match['rest']}", "share"
    if (match := _MANY.match(question)) or (match := _MANY_VERB.match(question)):
        return _many(match, slot)
    if match := _WHO.match(question):
        return f"{slot} {match['rest']}", "who"
    if match := _IS_THE.match(question):
        return f"{match['rest'].removesuffix(' called')} {match['aux']} {slot}", f"is the {_head(match['rest'])}"
    if match := _WHICH.match(question):
        verb = match["verb"].lower()
        if verb in PASTS or verb in ("is", "was", "has", "had") or (verb.endswith("ed") and verb.islower()):
            return f"{slot} {match['verb']} {match['rest']}", f"which {match['noun'].split()[-1].lower()}"
    return None


def _head(phrase: str) -> str:
    """The first noun, as far as can be told: what stands before "of", "that" and so on."""
    before = re.split(r"\s(?:of|that|in|for|to|called|from|on|which|who|with|by)\s", phrase, maxsplit=1)
    return before[0].split()[-1].lower()


def _when(answer: str, noun: str | None) -> str:
    first = answer.split()[0].lower()
    if first in ("in", "on", "during", "since", "from", "between", "around", "about", "after", "before", "by", "until"):
        return ""
    return "on" if re.match(r"(?:[A-Z][a-z]+ \d{1,2}\b|\d{1,2} [A-Z])", answer) else "in"


def _many(match: re.Match[str], slot: str) -> tuple[str, str] | None:
    noun = match["noun"]
    if noun.split()[-1].lower().rstrip("s") in slot.lower() and noun.split()[0] not in ("of",):
        noun = ""  # the answer says it
    if "aux" not in match.groupdict():
        return f"{slot} {noun} {match['rest']}", "how many"
    auxiliary, rest = match["aux"].lower(), match["rest"]
    if rest.startswith("there"):
        return f"There {auxiliary} {slot} {noun} {rest[6:]}", "how many"
    if auxiliary in ("did", "does", "do"):
        parts = _declared(auxiliary, rest)
        return (f"{parts[0]} {slot} {noun} {parts[1]}", "how many") if parts else None
    return f"{slot} {noun} {auxiliary} {rest}", "how many"


def tidied(statement: str) -> str:
    """With single spaces, a capital and a full stop; a sentence that begins with the answer keeps its mark."""
    text = " ".join(statement.split())
    place = 1 if text.startswith("{") else 0
    return text[:place] + text[place : place + 1].upper() + text[place + 1 :] + "."


@dataclass(frozen=True)
class Fact:
    """A question whose answer is one value, and the statement made of both, the answer marked."""

    title: str
    id: str
    question: str
    answer: str
    statement: str
    rule: str
    value: Value


def _answer(answers: list[dict[str, Any]]) -> tuple[str, Value] | None:
    """The most frequent answer (then the shortest) that is one value and little else."""
    counts = Counter(answer["text"].strip(" .,;") for answer in answers)
    for text, _ in sorted(counts.items(), key=lambda item: (-item[1], len(item[0]))):
        values = find_values(f"It is {text}")
        if len(values) == 1 and len(text) <= 40:
            value = values[0]
            rest = re.sub(
                r"\b(?:the|a|an|in|on|around|about|over|nearly|approximately|almost|more than)\b",
                "",
                text.replace(value.text, ""),
            )
            if len(rest.strip(" .,'\"")) <= 12:
                return text, value
    return None


def facts_of(articles: list[dict[str, Any]], titles: list[str]) -> list[Fact]:
    """All questions of these articles that a rule can rewrite."""
    facts = []
    for article in articles:
        if article["title"] not in titles:
            continue
        for paragraph in article["paragraphs"]:
            for record in paragraph["qas"]:
                answer = _answer(record["answers"])
                made = rewritten(record["question"], answer[0]) if answer else None
                if answer and made:
                    statement = tidied(made[0])
                    facts.append(
                        Fact(
                            article["title"],
                            record["id"],
                            record["question"].strip(),
                            answer[0],
                            statement,
                            made[1],
                            answer[1],
                        )
                    )
    return facts


def shape(value: Value) -> str:
    """What a value must share with another to stand in its place: its kind, the form of a date, a number's unit."""
    if value.kind == "date":
        return "date-" + re.sub(r"\d+", "9", re.sub(r"[A-Z][a-z]+", "M", value.text))
    if isinstance(value.means, Numeral):
        return f"number-{value.means.unit}-{value.means.ordinal}"
    return value.kind


def shifted(fact: Fact, random_: random.Random) -> str | None:
    """The answer with its number, or the year (or the day) of its date, moved; None where it has no digits."""
    match = list(re.finditer(r"\d[\d,]*(?:\.\d+)?", fact.answer))
    if not match:
        return None
    one = max(match, key=lambda found: len(found[0]))
    text = one[0]
    decimals = len(text.partition(".")[2])
    number = float(text.replace(",", ""))
    if fact.value.kind == "date" and number > 31:
        moved = number + random_.choice([-1, 1]) * random_.choice([2, 3, 5, 7, 11, 14, 19, 23, 38, 52])
    elif number < 12:
        moved = number + random_.choice([1, 2, 3, 4])
    else:
        moved = number * random_.choice([0.6, 0.75, 0.87, 1.12, 1.3, 1.7])
        if decimals == 0 and number >= 100 and number % 10 == 0:
            moved = round(moved / 10) * 10
    written = f"{moved:,.{decimals}f}" if "," in text else f"{moved:.{decimals}f}"
    if fact.value.kind == "date" and number <= 31:
        written = str(1 + int(number + random_.choice([3, 6, 9, 13])) % 28)
    return None if written == text else fact.answer[: one.start()] + written + fact.answer[one.end() :]


def planted(fact: Fact, facts: list[Fact], texts: dict[str, str], elsewhere: bool, choice: Choice) -> str | None:
    """The answer to another question, of another article or of the same one, whose value has the same shape.

    A name is one of the four whose vectors are nearest to that of the right one (so that a person stands for a person).
    Where no answer of the article fits, a value of its text is taken. None where there is none.
    """
    others = [other.answer for other in facts if (other.title != fact.title) == elsewhere and _fits(other.value, fact)]
    if not others and not elsewhere:
        others = [value.text for value in find_values(texts[fact.title]) if _fits(value, fact)]
    others = sorted({other for other in others if other.lower() not in fact.question.lower()})
    if fact.value.kind == "name" and others:
        nearness = choice.vectors(others) @ choice.vectors([fact.answer])[0]
        others = [others[place] for place in nearness.argsort(descending=True)[:4].tolist()]
    return choice.random.choice(others) if others else None


def _fits(value: Value, fact: Fact) -> bool:
    different = not same(value, fact.value) and not same(fact.value, value)
    return shape(value) == shape(fact.value) and different and not value.doubtful


class Choice:
    """Chance, and the vectors of answers."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self._model = gf.load("all-minilm-l6-v2")
        self._kept: dict[str, Tensor] = {}

    def vectors(self, texts: list[str]) -> Tensor:
        new = [text for text in texts if text not in self._kept]
        if new:
            self._kept |= dict(zip(new, self._model.embed(new), strict=True))
        return torch.stack([self._kept[text] for text in texts])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("squad", type=Path)
    parser.add_argument("--part", choices=list(PARTS), required=True)
    parser.add_argument("--per-article", type=int, default=16)
    parser.add_argument("--seed", type=int, default=7)
    given = parser.parse_args()
    choice = Choice(given.seed)
    random_ = choice.random
    articles = json.loads(given.squad.read_text())["data"]
    facts = facts_of(articles, PARTS[given.part])
    texts = {one["title"]: "\n\n".join(part["context"] for part in one["paragraphs"]) for one in articles}
    for title in PARTS[given.part]:
        own = [fact for fact in facts if fact.title == title]
        random_.shuffle(own)
        for fact in own[: given.per_article]:
            moved = shifted(fact, random_) if fact.value.kind != "name" and random_.random() < 0.6 else None
            record = {
                "article": title, "id": fact.id, "question": fact.question, "answer": fact.answer, "rule": fact.rule,
                "kind": fact.value.kind, "statement": fact.statement,
                "a": moved or planted(fact, facts, texts, True, choice), "a_how": "shifted" if moved else "elsewhere",
                "b": planted(fact, facts, texts, False, choice),
            }  # fmt: skip
            print(json.dumps(record, ensure_ascii=False))


if __name__ == "__main__":
    main()
