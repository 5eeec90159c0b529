"""What a map between Hugging Face's folders and our networks is made of. It is data, so it runs both ways."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from glassformer.models.config import Config


@dataclass(frozen=True)
class Rule:
    """One of their tensors and what it is of ours.

    Several of `ours` lie one after the other along the first axis of theirs (GPT-2's fused queries, keys and values).
    `transposed`: they store [in, out]. `skipped`: so many rows of theirs come first that nobody reads (BART's two
    unused positions); they are written as zeros. `optional`: what their folder may leave out (a tied head, a pooler).
    """

    theirs: str
    ours: tuple[str, ...]
    transposed: bool = False
    skipped: int = 0
    optional: bool = False


@dataclass(frozen=True)
class Map:
    """One architecture of Hugging Face.

    `model_type` is config.json's. `read_config` takes config.json and gives our `Config` (`InputError` for a setting
    that our parts do not have), `write_config` is its inverse and names the class in "architectures". `rules` lists
    every tensor of a network with that config. `ignored` are patterns (regular expressions) of their tensors that hold
    nothing that was trained, such as position ids.
    """

    model_type: str
    family: str
    read_config: Callable[[Mapping[str, Any]], Config]
    write_config: Callable[[Config], dict[str, Any]]
    rules: Callable[[Config], list[Rule]]
    ignored: tuple[str, ...] = ()
