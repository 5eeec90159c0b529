"""Settings are read strictly, and written so that they read back equal."""

from dataclasses import dataclass, field
from typing import Literal

import pytest

from glassformer.errors import InputError, did_you_mean
from glassformer.models.config import Config, Learned, Sinusoidal
from glassformer.settings import from_mapping, to_mapping


@dataclass(frozen=True)
class Rotary:
    base: float = 10000.0


@dataclass(frozen=True)
class Inner:
    size: int = 1


@dataclass(frozen=True)
class Outer:
    name: str
    rate: float = 0.5
    betas: tuple[float, float] = (0.9, 0.98)
    mode: Literal["fast", "slow"] = "fast"
    limit: int | None = None
    positions: Learned | Rotary = Learned()
    inner: Inner = field(default_factory=Inner)


def test_reads_back_what_it_wrote() -> None:
    for outer in (Outer("a"), Outer("b", 1.0, (0.1, 0.2), "slow", 3, Rotary(5e5), Inner(7))):
        assert from_mapping(Outer, to_mapping(outer), "here") == outer


def test_a_choice_is_its_name_or_its_name_with_values() -> None:
    assert from_mapping(Outer, {"name": "a", "positions": "rotary"}, "here").positions == Rotary()
    chosen = from_mapping(Outer, {"name": "a", "positions": {"kind": "rotary", "base": 3}}, "here").positions
    assert chosen == Rotary(3.0)
    assert to_mapping(Config(9))["positions"] == "sinusoidal"
    assert from_mapping(Config, {"vocab_size": 9, "positions": "learned"}, "here").positions == Learned()
    assert Config(9).positions == Sinusoidal()


@pytest.mark.parametrize(
    ("mapping", "said"),
    [
        ({"nam": "a"}, "here: unknown key 'nam'. Did you mean 'name'"),
        ({}, "here: the key 'name' is missing"),
        ({"name": 3}, "'name' must be str, got 3"),
        ({"name": "a", "rate": "high"}, "'rate' must be float, got 'high'"),
        ({"name": "a", "rate": True}, "'rate' must be float, got True"),
        ({"name": "a", "betas": [0.1]}, "'betas' must be"),
        ({"name": "a", "mode": "quick"}, "must be one of 'fast', 'slow', got 'quick'"),
        ({"name": "a", "positions": "rotari"}, "Did you mean 'rotary'"),
        ({"name": "a", "positions": {"kind": "rotary", "bass": 1}}, "unknown key 'bass'. Did you mean 'base'"),
        ({"name": "a", "inner": {"size": 1.5}}, "'size' must be int, got 1.5"),
    ],
)
def test_what_does_not_fit_is_named(mapping: dict, said: str) -> None:
    with pytest.raises(InputError) as caught:
        from_mapping(Outer, mapping, "here")
    assert said in str(caught.value)


def test_hint() -> None:
    assert did_you_mean("droput", ["dropout", "d_model"]) == " Did you mean 'dropout'?"
    assert did_you_mean("zebra", ["dropout"]) == ""
