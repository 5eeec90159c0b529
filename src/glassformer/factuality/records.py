"""Records of generations: what a model wrote, and how unsure it was at every token. Scores of uncertainty read them.

Everything in a record is the model's own, before temperature, filters and grammars, in nats.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Unpack

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from glassformer.errors import InputError
from glassformer.generation.decoding import evaluation
from glassformer.generation.sampling import Spread, log_probabilities
from glassformer.generation.stopping import Reader
from glassformer.interpret.trace import trace
from glassformer.tasks.chat import chat_ids
from glassformer.tasks.generate import Generation, Options, Settings, generate
from glassformer.tasks.inputs import Prompt, is_one
from glassformer.tasks.inputs import text_ids as ids_of_texts
from glassformer.tasks.model import Model
from glassformer.tasks.score import BATCH_TOKENS
from glassformer.tasks.translate import batches

Asked = Prompt | Sequence[Mapping[str, Any]]
"""What a model goes on from: text, its ids, or the messages of a conversation."""

Kept = Literal["ends", "all"]
"""Which states a record has: of all its tokens, or of the first and the last one."""

_AT_ONCE = 64  # logits of so many positions of an answer at a time
_TEXTS = 32  # texts that are traced together


@dataclass(frozen=True, eq=False)
class Record:
    """One answer: `ids` went on from `prompt_ids`, `text` says the same without what ended it.

    For each of the n ids: `logprobs`, log p of it; `entropies`, −Σ p log p of all that could have stood there;
    `margins`, log p of the most probable token less that of the second. A token that ended the text (`</s>`, or those
    of a stop string) counts as one of them.

    `states` [n, D] are hidden states for a probe: row i is what id i was chosen from. The first has read the prompt
    alone, the last has read everything but the last id. With "ends" only these two are kept, [2, D].
    """

    prompt_ids: tuple[int, ...]
    ids: tuple[int, ...]
    text: str
    logprobs: tuple[float, ...]
    entropies: tuple[float, ...]
    margins: tuple[float, ...]
    states: Float[Tensor, "k D"] | None = None


def record(
    model: Model, prompts: Sequence[Asked], *, keep: Kept | None = None, **settings: Unpack[Settings]
) -> list[Record]:
    """Answer the prompts, and keep what the model knew of each answer: one `Record` a prompt, in order.

    Settings are those of `Model.generate` (not a beam). `keep` says of which tokens the states are kept: the network's
    last states, which its head reads, so that they come without another pass. Other layers' need one: `read_again`.
    """
    asked = asked_ids(model, prompts)
    if settings.get("beam", 1) != 1:
        raise InputError("a record is of a text that was written token by token: leave out 'beam'.")
    wanted = Options(**(settings | Settings(uncertainty=True, states=keep is not None, logprobs=0)))
    context = not (prompts and _is_conversation(prompts[0]))
    return [_record(one, keep) for one in generate(model, asked, wanted, context)]


def asked_ids(model: Model, prompts: Sequence[Asked]) -> list[list[int]]:
    """The ids that the model reads of each prompt; a conversation is read by the model's chat template."""
    if isinstance(prompts, str) or (prompts and not _is_conversation(prompts[0]) and is_one(prompts)):
        raise InputError("give a list of prompts, if only of one.")
    if not prompts:
        return []
    kinds = {_is_conversation(prompt) for prompt in prompts}
    if len(kinds) > 1:
        raise InputError("give either texts or conversations, not both in one list.")
    if kinds == {True}:
        return [chat_ids(model, prompt) for prompt in prompts]  # type: ignore[arg-type]
    return ids_of_texts(model, prompts)  # type: ignore[arg-type]


def record_answers(
    model: Model,
    prompts: Sequence[Asked],
    answers: Sequence[Prompt],
    *,
    keep: Kept | None = None,
    batch_tokens: int = BATCH_TOKENS,
) -> list[Record]:
    """Records of answers that are given, as if the model had written them after the prompts; one pass over each.

    An answer as text is cut into tokens by itself: let it begin with a space where the prompt does not end with one.
    Raises `InputError` for an answer without tokens, and for texts that are longer than the model's positions.
    """
    model.running  # noqa: B018 - only a decoder says how probable an answer is
    asked = asked_ids(model, prompts)
    given = [model.tokenizer.encode(each) if isinstance(each, str) else [int(i) for i in each] for each in answers]
    if len(asked) != len(given):
        raise InputError(f"every prompt needs its answer, got {len(asked)} and {len(given)}.")
    rows = [prompt + answer for prompt, answer in zip(asked, given, strict=True)]
    _check(rows, asked, given, model.config.max_length)
    found: dict[int, Record] = {}
    with torch.inference_mode(), evaluation(model.network):
        for batch in batches([len(row) for row in rows], batch_tokens):
            ids = pad_sequence([torch.tensor(rows[place]) for place in batch], batch_first=True).to(model.device)
            hidden = model.network.hidden(ids)  # type: ignore[operator]
            for index, place in enumerate(batch):
                own = hidden[index, len(asked[place]) - 1 : len(rows[place]) - 1]
                found[place] = _observed(model, asked[place], given[place], own, keep)
    return [replace(found[place], states=_normal(found[place].states)) for place in range(len(rows))]


def read_again(
    model: Model, records: Sequence[Record], site: str = "residual_post[*]", *, keep: Kept = "ends"
) -> list[Record]:
    """The records with states of another site, by a separate pass over each prompt with its answer (`gf.trace`).

    `site` names layers in the grammar of `interpret`, without positions: "residual_post[10]", or several,
    "residual_post[5,10]", whose states are put one after another, [k, layers · D]. Raises `InputError` as `gf.trace`.
    """
    if "@" in site:
        raise InputError(f"'site' names layers only, without positions, such as 'residual_post[10]'; got '{site}'.")
    found = []
    for first in range(0, len(records), _TEXTS):
        part = records[first : first + _TEXTS]
        rows = [[*one.prompt_ids, *one.ids[:-1]] for one in part]
        values = trace(model, rows, f"{site} @ *").stack(f"{site} @ *")
        for number, (one, row) in enumerate(zip(part, rows, strict=True)):
            own = values[:, number, len(one.prompt_ids) - 1 : len(row)].transpose(0, 1).flatten(1)
            found.append(replace(one, states=_kept(own.float().cpu(), keep)))
    return found


def _is_conversation(prompt: Any) -> bool:
    listed = isinstance(prompt, Sequence) and not isinstance(prompt, str) and len(prompt) > 0
    return listed and isinstance(prompt[0], Mapping)


def _check(rows: list[list[int]], prompts: list[list[int]], answers: list[list[int]], longest: int) -> None:
    for number, (row, prompt, answer) in enumerate(zip(rows, prompts, answers, strict=True), 1):
        if not prompt or not answer:
            raise InputError(f"prompt and answer need a token each, text {number} has {len(prompt)} and {len(answer)}.")
        if len(row) > longest:
            raise InputError(f"text {number} has {len(row)} tokens, the model reads at most {longest}: shorten it.")


def _record(one: Generation, keep: Kept | None) -> Record:
    assert one.prompt_ids is not None and one.entropies is not None and one.margins is not None
    kept = None if keep is None or one.states is None else _kept(one.states, keep)
    return Record(one.prompt_ids, one.ids, one.text, one.logprobs, one.entropies, one.margins, kept)


def _kept(states: Float[Tensor, "n D"], which: Kept) -> Float[Tensor, "k D"]:
    return states if which == "all" else states[[0, -1]]


def _observed(model: Any, prompt: list[int], answer: list[int], hidden: Tensor, keep: Kept | None) -> Record:
    """The record of an answer whose tokens were to be chosen from `hidden` [n, D]."""
    logprobs: list[float] = []
    entropies: list[float] = []
    margins: list[float] = []
    for first in range(0, len(answer), _AT_ONCE):
        part = slice(first, first + _AT_ONCE)
        logits = model.network.logits(model.network.head(hidden[part]))
        unsure = Spread.of(logits)
        entropies += unsure.entropies
        margins += unsure.margins
        own = torch.tensor(answer[part], device=logits.device)
        logprobs += log_probabilities(logits, own, total=unsure.total)[0]
    kept = None if keep is None else _kept(hidden.float().cpu(), keep)
    text = _text(model, prompt, answer)
    return Record(tuple(prompt), tuple(answer), text, tuple(logprobs), tuple(entropies), tuple(margins), kept)


def _text(model: Model, prompt: list[int], answer: list[int]) -> str:
    reader = Reader(model.tokenizer, context=prompt)
    ids = answer[:-1] if answer[-1] in model.ends else answer
    return "".join([*map(reader.push, ids), reader.finish()])


def _normal(states: Tensor | None) -> Tensor | None:
    """A tensor that gradients may be taken with, of one that was made in inference mode."""
    return None if states is None else states.clone()
