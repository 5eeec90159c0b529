"""Records of the answers to many prompts, some of which begin alike: what they share is read once."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence

from glassformer.factuality.records import Kept, Record, record
from glassformer.generation.engine import Engine
from glassformer.generation.engine import generate as answer
from glassformer.generation.shared import AfterBeginning, beginning_of
from glassformer.tasks.generate import Options, Settings, make_requests, prompt_ids
from glassformer.tasks.model import Model

BATCH = 64
"""So many prompts are answered at a time."""

WORTH = 8
"""So many prompts must share so many ids for these to be read beforehand."""

Batch = tuple[list[int], list[Record]]


def records_of(
    model: Model,
    prompts: Sequence[list[int]],
    groups: Sequence[Hashable],
    *,
    max_new_tokens: int,
    stop: str,
    keep: Kept | None = None,
) -> Iterator[Batch]:
    """What `record` gives for the prompts (the most probable token always), a batch at a time: their numbers, and their
    records.

    Prompts of one of the `groups` are taken together. What all of a group begin with is read once; its keys and values
    are copied to each. Records are those of prompts that were read whole, up to rounding.
    """
    settings = Settings(max_new_tokens=max_new_tokens, stop=stop)
    prompt_ids(model, prompts, Options(**settings))  # raises what is wrong with them
    parts: dict[Hashable, list[int]] = {}
    for row in sorted(range(len(prompts)), key=lambda row: len(prompts[row])):
        parts.setdefault(groups[row], []).append(row)
    whole: list[int] = []
    for rows in parts.values():
        beginning = beginning_of([prompts[row] for row in rows])
        if min(len(rows), len(beginning)) < WORTH:
            whole += rows
            continue
        after = AfterBeginning(model.running, beginning, model.device)
        for part in _cut(rows):
            yield part, _record_after(model, after, [prompts[row] for row in part], keep, settings)
    for part in _cut(sorted(whole, key=lambda row: len(prompts[row]))):
        yield part, record(model, [prompts[row] for row in part], keep=keep, **settings)


def _cut(rows: list[int]) -> Iterator[list[int]]:
    return (rows[start : start + BATCH] for start in range(0, len(rows), BATCH))


def _record_after(
    model: Model, after: AfterBeginning, prompts: list[list[int]], keep: Kept | None, settings: Settings
) -> list[Record]:
    """As `record`, with a network that has read what the prompts begin with."""
    options = Options(**(settings | Settings(uncertainty=True, states=keep is not None, logprobs=0)))
    engine = Engine(after, model.tokenizer, eos_ids=model.ends, rows=len(prompts), device=model.device)
    results = answer(engine, make_requests(model, [prompt[after.held :] for prompt in prompts], options))
    found = []
    for prompt, one in zip(prompts, results, strict=True):
        states = one.states if one.states is None or keep == "all" else one.states[[0, -1]]
        found.append(Record(tuple(prompt), one.ids, one.text, one.logprobs, one.entropies, one.margins, states))
    return found
