"""What a report shows of each part, whatever it is written in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from glassformer.studies.running import Done
from glassformer.studies.study import Claim, Part, Picture, Table


@dataclass(frozen=True)
class Section:
    """A part under its number, with the pictures, tables and claims that its result gave: none where it is missing."""

    number: int
    done: Done
    pictures: tuple[Picture, ...] = ()
    tables: tuple[Table, ...] = ()
    claims: tuple[Claim, ...] = ()

    @property
    def part(self) -> Part:
        return self.done.part


def sections_of(done: Sequence[Done], figures: Path) -> list[Section]:
    """The parts as they are shown, numbered from 1; their pictures are drawn into the folder `figures`."""
    return [_section(number, each, figures) for number, each in enumerate(done, 1)]


def claims_of(done: Done) -> list[Claim]:
    """What a part says; nothing where it was not measured."""
    return [] if done.result is None else list(done.part.claims(done.result))


def _section(number: int, done: Done, figures: Path) -> Section:
    if done.result is None:
        return Section(number, done)
    pictures, tables = done.part.draw(done.result, figures), done.part.tables(done.result)
    return Section(number, done, tuple(pictures), tuple(tables), tuple(claims_of(done)))
