"""Facts to ask a model about: "The Game Boy was created by" → "Nintendo", read from files and made ready for a study.

`facts` reads them, `Facts.known` keeps those that a model knows, `Facts.swapped` and `Facts.with_made_up_subjects` are
what they are compared with.
"""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from glassformer.checkpoints.files import write_bytes
from glassformer.errors import InputError, did_you_mean
from glassformer.interpret.fact_files import Record, read_fact_file
from glassformer.interpret.made_up import made_up_name
from glassformer.interpret.shots import after_shots, choose_shots, gives_away, lines_of_shots, shown_alike

if TYPE_CHECKING:
    from glassformer.interpret.gate import Gate
    from glassformer.tasks.model import Model
    from glassformer.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Fact:
    """One fact: a `prompt` that holds the `subject` and goes on with the right answer, the first of `answers`.

    `start` is the character of the prompt where the subject begins; by default its last occurrence, as a word of its
    own if there is one. Raises `InputError` for a subject that is not in the prompt (there), and for empty texts.
    """

    id: str
    subject: str
    relation: str
    prompt: str
    answers: tuple[str, ...]
    start: int = -1

    def __post_init__(self) -> None:
        given = (self.answers,) if isinstance(self.answers, str) else tuple(self.answers)
        object.__setattr__(self, "answers", given)
        if not self.subject.strip() or not given or not all(answer.strip() for answer in given):
            raise InputError(f"fact '{self.id}' must have a subject and an answer, got {self.subject!r} and {given}.")
        if self.start == -1:
            object.__setattr__(self, "start", _last_occurrence(self.subject, self.prompt))
        if self.start < 0 or not self.prompt.startswith(self.subject, self.start):
            raise InputError(f"fact '{self.id}': the subject {self.subject!r} must be in the prompt {self.prompt!r}.")

    @property
    def answer(self) -> str:
        """The right answer that is scored."""
        return self.answers[0]

    @property
    def end(self) -> int:
        """The character of the prompt after the subject."""
        return self.start + len(self.subject)


@dataclass(frozen=True)
class Facts(Sequence[Fact]):
    """Facts in order. Slices, `take` and `where` give `Facts` too.

    `shots` are the facts that stand before every prompt. `dropped` counts what was left out when they were read or put
    to a model, and why; `gate` is what `known` measured. These three do not count when facts are compared, and a part
    of the facts keeps the shots alone.
    """

    items: tuple[Fact, ...]
    shots: tuple[Fact, ...] = field(default=(), compare=False)
    dropped: Mapping[str, int] = field(default_factory=dict, compare=False, hash=False)
    gate: Gate | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "items", tuple(self.items))

    @overload
    def __getitem__(self, index: int) -> Fact: ...
    @overload
    def __getitem__(self, index: slice) -> Facts: ...
    def __getitem__(self, index: int | slice) -> Fact | Facts:
        return self._with(self.items[index]) if isinstance(index, slice) else self.items[index]

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Fact]:
        return iter(self.items)

    def __repr__(self) -> str:
        frequent = ", ".join(f"{name} {count}" for name, count in self.classes.most_common(3))
        return f"Facts({len(self)}: {frequent}{', …' if len(self.classes) > 3 else ''})"

    def _with(self, items: Iterable[Fact]) -> Facts:
        return Facts(tuple(items), self.shots)

    @property
    def prompts(self) -> list[str]:
        """What the model reads of each fact."""
        return [fact.prompt for fact in self]

    @property
    def subjects(self) -> list[str]:
        """The subject of each fact."""
        return [fact.subject for fact in self]

    @property
    def answers(self) -> list[str]:
        """The right answer of each fact."""
        return [fact.answers[0] for fact in self]

    @property
    def labels(self) -> list[str]:
        """The class of each fact, for a probe: its right answer."""
        return self.answers

    @property
    def classes(self) -> Counter[str]:
        """How many facts have each right answer."""
        return Counter(self.answers)

    def take(self, rows: Iterable[int]) -> Facts:
        """The facts of these numbers, in this order."""
        return self._with(self.items[row] for row in rows)

    def where(
        self,
        test: Callable[[Fact], bool] | None = None,
        *,
        relation: str | Collection[str] | None = None,
        answer: str | Collection[str] | None = None,
        subject: str | Collection[str] | None = None,
    ) -> Facts:
        """The facts that pass a test and have one of these relations, right answers and subjects."""

        def among(value: str, wanted: str | Collection[str] | None) -> bool:
            return wanted is None or (value == wanted if isinstance(wanted, str) else value in wanted)

        return self._with(
            fact
            for fact in self
            if (test is None or test(fact))
            and among(fact.relation, relation)
            and among(fact.answers[0], answer)
            and among(fact.subject, subject)
        )

    def frequent(self, least: int) -> Facts:
        """The facts whose right answer has at least so many facts here."""
        classes = self.classes
        return self.where(lambda fact: classes[fact.answers[0]] >= least)

    def save(self, path: str | Path) -> Path:
        """Write JSON Lines, which `facts` reads back to equal facts: id, subject, relation, prompt, answers, start."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = (json.dumps(vars(fact), ensure_ascii=False) + "\n" for fact in self)
        write_bytes(path, "".join(lines).encode())
        return path

    def swapped(self, seed: int = 0, *, tokenizer: Tokenizer | None = None) -> Facts:
        """For each fact another of the same relation and with another answer, so that fact i and fact i of these make a
        pair for patching. The same seed gives the same pairs; a fact may be the partner of several.

        Where that can be, the prompts of a pair are the same but for the subject. With a `tokenizer`, subjects of
        equally many tokens are taken, else of numbers as near as can be. Raises `InputError` where all facts of a
        relation have the same answer.
        """
        lengths = [0] * len(self) if tokenizer is None else _subject_tokens(self, tokenizer)
        draw = random.Random(f"swapped {seed}")
        groups: dict[tuple[str, ...], dict[int, list[int]]] = {}
        for row in draw.sample(range(len(self)), len(self)):
            for key in _likenesses(self.items[row]):
                groups.setdefault(key, {}).setdefault(lengths[row], []).append(row)
        return self.take(self._partner(row, lengths[row], groups, draw) for row in range(len(self)))

    def _partner(
        self, row: int, length: int, groups: Mapping[tuple[str, ...], Mapping[int, list[int]]], draw: random.Random
    ) -> int:
        fact = self.items[row]
        for group in (groups[key] for key in _likenesses(fact)):
            for near in sorted(group, key=lambda other: (abs(other - length), other)):
                rows = group[near]
                first = draw.randrange(len(rows))
                for other in (*rows[first:], *rows[:first]):
                    if not set(self.items[other].answers) & set(fact.answers):
                        return other
        raise InputError(f"all facts of the relation '{fact.relation}' have one answer: there is none to swap with.")

    def with_made_up_subjects(self, seed: int = 0) -> Facts:
        """The same prompts about names of no one (`made_up.made_up_name`), with the answers of the real ones: whoever
        gives these answers here does not recall, but guesses from what else the prompt holds."""
        answers = sorted(self.classes)
        return self._with(_renamed(fact, made_up_name(fact.subject, seed, answers)) for fact in self)

    def known(self, model: Model, batch_size: int = 32) -> Facts:
        """The facts that a model knows: of all tokens, the one that the right answer begins with is the likeliest.

        `gate` of the result says how many these are, with intervals, and how often prompts about made-up subjects give
        the same answers; print it. Where no fact is known, the result is empty and its `gate` says so. Facts whose
        answers begin with the same token as another answer of their relation cannot be told apart by it: they are left
        out and counted. See `gate.measure`.
        """
        from glassformer.interpret.gate import measure

        rows, gate = measure(model, self, batch_size)
        dropped = {**self.dropped, "begins like another answer": gate.ambiguous} if gate.ambiguous else self.dropped
        return replace(self.take(rows), dropped=dropped, gate=gate)


def facts(
    path: str | Path,
    template: str | None = None,
    shots: int = 0,
    seed: int = 0,
    relation: str | None = None,
    limit: int | None = None,
) -> Facts:
    """Read facts from a file of one of four kinds (`fact_files`).

    `template` makes the prompts: "{subject} was created by". Without it the file's own prompts or templates are taken.
    `relation` keeps the facts of one relation, and names them where the file does not. `shots` puts so many other
    facts, complete with their answers, before every prompt (`shots.choose_shots`); these leave the set. `limit` keeps
    so many facts, drawn by the seed, in the file's order.

    Left out, and counted in `dropped`: facts that are listed twice, or whose subject is listed with different answers;
    facts whose answer, or its stem, is in the subject (`shots.gives_away`); and those whose answer is in the shots,
    unless every answer stands there equally often, so that the shots tell nothing.

    Raises `InputError`, with file and line, for a file that is missing, empty or broken, an unknown format, answers
    that are missing, a subject that is not in the prompt; for a template without {subject}, a relation that is not
    there, shots that cannot be chosen, and where no fact is left.
    """
    if shots < 0 or (limit is not None and limit < 1):
        raise InputError(f"'shots' must be at least 0 and 'limit' at least 1, got {shots} and {limit}.")
    records = _of_relation(read_fact_file(path), relation, path)
    found, dropped = _single([_fact(record, template, relation) for record in records])
    kept = [fact for fact in found if not any(gives_away(fact.subject, answer) for answer in fact.answers)]
    dropped["answer in the subject"] = len(found) - len(kept)
    before = choose_shots(kept, shots, seed) if shots else []
    rest = [fact for fact in kept if fact not in before]
    shown = lines_of_shots(before)
    alike = shown_alike(before, kept)
    left = [fact for fact in rest if alike or not any(gives_away(shown, answer) for answer in fact.answers)]
    dropped |= {"used as a shot": len(before), "answer in the shots": len(rest) - len(left)}
    if not left:
        raise InputError(f"{path}: no fact is left; left out: {_counted(dropped)}.")
    if limit is not None and limit < len(left):
        left = [left[row] for row in sorted(random.Random(f"limit {seed}").sample(range(len(left)), limit))]
    counts = {reason: count for reason, count in dropped.items() if count}
    return Facts(tuple(after_shots(fact, shown) for fact in left), tuple(before), counts)


def _of_relation(records: list[Record], relation: str | None, path: str | Path) -> list[Record]:
    named = {record.relation for record in records if record.relation}
    if relation is None or not named:
        return records
    if relation not in named:
        hint = did_you_mean(relation, named) or f" There are {', '.join(sorted(named)[:40])}."
        raise InputError(f"{path}: there is no relation '{relation}'.{hint}")
    return [record for record in records if record.relation == relation]


def _fact(record: Record, template: str | None, relation: str | None) -> Fact:
    """The fact of a record; its subject's place is known where a template puts it there."""
    template = template or ("" if record.prompt else record.template)
    prompt, start = record.prompt, record.start
    if template:
        parts = template.replace("{subject}", "{}").split("{}")
        if len(parts) != 2:
            raise InputError(f"a template must hold {{subject}} once, where the subject goes; got {template!r}.")
        prompt, start = record.subject.join(parts), len(parts[0])
    elif not prompt:
        raise InputError(f'{record.where}: there is no prompt; give a template, such as "{{subject}} was created by".')
    try:
        return Fact(record.id, record.subject, record.relation or relation or "", prompt, record.answers, start)
    except InputError as error:
        raise InputError(f"{record.where}: {error}") from None


def _single(found: Sequence[Fact]) -> tuple[list[Fact], dict[str, int]]:
    """The facts without repetition and without prompts that are listed with several right answers; what went."""
    answers: dict[tuple[str, str], set[str]] = {}
    for fact in found:
        answers.setdefault((fact.relation, fact.prompt), set()).add(fact.answers[0])
    clear = [fact for fact in found if len(answers[fact.relation, fact.prompt]) == 1]
    once = list({(fact.relation, fact.prompt): fact for fact in reversed(clear)}.values())[::-1]
    return once, {"several answers": len(found) - len(clear), "listed twice": len(clear) - len(once)}


def _counted(dropped: Mapping[str, int]) -> str:
    return ", ".join(f"{count} ({reason})" for reason, count in dropped.items() if count) or "none"


def _last_occurrence(subject: str, prompt: str) -> int:
    whole = [found.start() for found in re.finditer(rf"(?<!\w){re.escape(subject)}(?!\w)", prompt)]
    return whole[-1] if whole else prompt.rfind(subject)


def _likenesses(fact: Fact) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What a fact can share with its partner: relation and prompt without the subject; or the relation alone."""
    return (fact.relation, fact.prompt[: fact.start], fact.prompt[fact.end :]), (fact.relation,)


def _renamed(fact: Fact, name: str) -> Fact:
    """The fact about another name of the same length, wherever the subject stands as a word, and at `start`."""
    prompt = fact.prompt[: fact.start] + name + fact.prompt[fact.end :]
    prompt = re.sub(rf"(?<!\w){re.escape(fact.subject)}(?!\w)", lambda _: name, prompt)
    return replace(fact, subject=name, prompt=prompt)


def _subject_tokens(given: Facts, tokenizer: Tokenizer) -> list[int]:
    """How many tokens share a character with each subject, as it stands in its prompt."""
    found: list[Any] = tokenizer.encode_spans_all(given.prompts)
    return [
        sum(begin < fact.end and end > fact.start for begin, end in ranges)
        for fact, (_, ranges) in zip(given, found, strict=True)
    ]
