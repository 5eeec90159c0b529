"""Made-up facts and tiny decoders for tests of the study of recall, with random weights or having learnt them."""

from __future__ import annotations

from functools import cache

import torch
from generation.small_decoders import byte_level, decoder

from glassformer.interpret.facts import Fact, Facts
from glassformer.studies.fact_recall.stages import Material, Work
from glassformer.tasks.model import Model
from glassformer.text.pipeline import TextPipeline

ANSWERS = ("red", "blue")


def made(count: int = 16) -> Facts:
    """Names of two letters with a colour each: "We say that ab likes" → "red"."""
    names = [first + second for first in "abcd" for second in "efgh"][:count]
    facts = []
    for number, name in enumerate(names):
        answer = ANSWERS[(number + number // 4) % 2]
        facts.append(Fact(name, name, "colour", f"We say that {name} likes", (answer,)))
    return Facts(tuple(facts))


@cache
def random_model() -> Model:
    """Random weights."""
    return Model(decoder(rotary=True, max_length=64), byte_level(), TextPipeline(unicode="none"), "generation")


@cache
def trained_model(steps: int = 150) -> Model:
    """Four layers that have learnt the made-up facts by heart, in seconds."""
    model = Model(decoder(rotary=True, max_length=65), byte_level(), TextPipeline(unicode="none"), "generation")
    rows = [model.tokenizer.encode(f"{fact.prompt} {fact.answer}") for fact in made()]
    width = max(map(len, rows))
    ids = torch.tensor([[*row, *[0] * (width - len(row))] for row in rows])
    torch.manual_seed(0)
    optimizer = torch.optim.AdamW(model.network.parameters(), lr=1e-2)
    for _ in range(steps):
        optimizer.zero_grad()
        logits = model.network(ids[:, :-1]).logits
        torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), ignore_index=0).backward()
        optimizer.step()
    model.network.eval()
    return model


def work_of(model: Model, facts: Facts | None = None) -> Work:
    """All of the facts taken, without a gate."""
    asked = made() if facts is None else facts
    return Work(Material(model, asked, Facts(()), limit=16), range(len(asked)), "")
