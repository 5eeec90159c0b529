"""What a study is made of: parts that measure, and from the same numbers pictures, tables and claims with a verdict."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from glassformer.errors import InputError

Scale = Literal["toy", "quick", "full"]
Verdict = Literal["supported", "not supported", "not testable here"]
Result = dict[str, Any]
"""What a part measured: plain JSON values, so that it can be kept and drawn again."""

T = TypeVar("T")


@dataclass(frozen=True)
class Setting:
    """How large a study is, and on what. `toy` is for tests (seconds), `quick` for minutes, `full` for an hour.

    `runs` are folders of finished trainings, `data_root` is where data files lie; `train` says that missing runs may be
    trained. `say` shows progress. `given` is what else the study was asked to measure, as plain values.
    """

    scale: Scale = "quick"
    threads: int = 1
    runs: tuple[Path, ...] = ()
    data_root: Path | None = None
    train: bool = False
    say: Callable[[str], None] = lambda line: None
    given: Mapping[str, Any] = field(default_factory=dict)

    def pick(self, toy: T, quick: T, full: T) -> T:
        """The value of this scale."""
        return {"toy": toy, "quick": quick, "full": full}[self.scale]


@dataclass(frozen=True)
class Claim:
    """A sentence that could be wrong, the rule that decides it, and what was measured."""

    text: str
    rule: str
    measured: str
    verdict: Verdict


def claim(text: str, rule: str, measured: str, holds: bool | None) -> Claim:
    """A claim with the verdict that its rule gave: None where it could not be tested."""
    verdict: Verdict = "not testable here" if holds is None else "supported" if holds else "not supported"
    return Claim(text, rule, measured, verdict)


@dataclass(frozen=True)
class Picture:
    """A drawn figure: the name of its PNG file, and what is to be seen on it, with n, seeds and units."""

    file: str
    caption: str


@dataclass(frozen=True)
class Table:
    """Rows of text under a title."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Part:
    """One question. `run` measures; the others show what it returned, and give the same for the same numbers.

    `question` is for someone who never saw the paper, `method` says what is measured, on what, how often. `version`
    grows when `run` measures something else than before: results kept of an older one are then not used.
    """

    name: str
    title: str
    question: str
    method: str
    run: Callable[[Setting], Result]
    draw: Callable[[Result, Path], Sequence[Picture]]
    tables: Callable[[Result], Sequence[Table]]
    claims: Callable[[Result], Sequence[Claim]]
    version: int = 1


def matplotlib_figure(width: float, height: float) -> Any:
    """An empty matplotlib `Figure`. `InputError` that names the extra where matplotlib is missing."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise InputError(
            "the report's figures need matplotlib, which is not installed: pip install 'glassformer[plots]'"
        ) from None
    return Figure(figsize=(width, height), layout="constrained")


def save_figure(figure: Any, folder: Path, name: str, caption: str) -> Picture:
    """Write a figure as `name`.png, and what stands under it."""
    figure.savefig(folder / f"{name}.png", dpi=120)
    return Picture(f"{name}.png", caption)
