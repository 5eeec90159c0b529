"""What the verbs are given: one text or several, as text or as ids, and what a network reads of them."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from glassformer.errors import InputError
from glassformer.models.decoder import Decoder
from glassformer.models.families import TextToText
from glassformer.models.heads import Output

if TYPE_CHECKING:
    from glassformer.tasks.model import Model
    from glassformer.text.pipeline import TextPipeline
    from glassformer.text.tokenizer import Tokenizer

Prompt = str | Sequence[int] | Tensor
"""Text, or its ids."""


def as_text(given: Any) -> Any:
    """What has a text as its `prompt`, such as a fact, counts as that text; all else stays as it is."""
    prompt = getattr(given, "prompt", None)
    return prompt if isinstance(prompt, str) else given


def is_one(given: Any) -> bool:
    """Whether a verb was given one text (a string, or a list of ids) and not a list of them."""
    given = as_text(given)
    if isinstance(given, Tensor):
        return given.ndim == 1
    if not isinstance(given, Sequence):
        raise InputError(f"a text must be a string or a list of ids, or there must be a list of them; got {given!r}.")
    return isinstance(given, str) or (len(given) > 0 and isinstance(given[0], Integral))


def as_ids(text: Any, number: int) -> list[int]:
    """Ids as given, in a list or a tensor. `InputError` for anything else."""
    values = text.tolist() if isinstance(text, Tensor) else text
    whole = isinstance(values, Sequence) and all(isinstance(i, Integral) and not isinstance(i, bool) for i in values)
    if isinstance(values, str) or not whole:
        raise InputError(f"a text must be a string or a list of ids; text {number} is {text!r}.")
    return [int(i) for i in values]


def text_ids(model: Model, texts: Sequence[Prompt]) -> list[list[int]]:
    """The ids that a decoder reads: text with the tokenizer's frame (but not what closes it), ids as they are."""
    texts = [as_text(text) for text in texts]
    strings = [text for text in texts if isinstance(text, str)]
    encoded = iter(model.tokenizer.encode_all(strings, frame=True))
    found = []
    for number, text in enumerate(texts, 1):
        ids = next(encoded) if isinstance(text, str) else as_ids(text, number)
        closed = isinstance(text, str) and len(ids) > 1 and ids[-1] in model.ends
        found.append(ids[:-1] if closed else ids)
    return found


def framed_ids(
    tokenizer: Tokenizer,
    pipeline: TextPipeline,
    lines: Sequence[str],
    longest: int,
    *,
    truncate: bool = False,
    first_line: int = 1,
) -> list[list[int]]:
    """What an encoder reads of each line: its ids with the model's frame, `longest` of them at most.

    A longer line is an `InputError` that names it, counting from `first_line`; with `truncate` as much of its beginning
    is read as fits into the frame. An empty line is an `InputError` where the model's texts have no frame.
    """
    lines = [line.lower() for line in lines] if pipeline.lowercase else list(lines)
    found = tokenizer.encode_all(lines, frame=True)
    for place, ids in enumerate(found):
        if not ids:
            raise InputError(f"line {place + first_line} is empty, and this model's texts have no frame: leave it out.")
        if len(ids) <= longest:
            continue
        if not truncate:
            raise InputError(
                f"line {place + first_line} has {len(ids)} tokens, the model reads at most {longest}: shorten it, or "
                "read its beginning only (truncate=True, --truncate)."
            )
        found[place] = _shortened(ids, tokenizer.encode(lines[place]), longest)
    return found


def _shortened(framed: list[int], plain: list[int], longest: int) -> list[int]:
    """The frame around as much of the text's beginning as fits."""
    opening = next(i for i in range(len(framed)) if framed[i : i + len(plain)] == plain)
    closing = framed[opening + len(plain) :]
    return framed[: longest - len(closing)] + closing


class Edit(Protocol):
    """Something that changes what passes in a network (`interpret.edits`); the first of several runs them all."""

    def run(self, model: Any, text: Any, target: Any, edits: Any) -> Output: ...


def call(model: Model, text: Any, target: Any, edits: Sequence[Edit] = ()) -> Output:
    """See `Model.__call__`."""
    if edits:
        if not isinstance(edits, Sequence) or not hasattr(edits[0], "run"):
            raise InputError(f"'edits' must be a list of edits (patch, ablate, knockout, steer, apply), got {edits!r}.")
        return edits[0].run(model, text, target, edits)
    if isinstance(model.network, TextToText):
        if target is None:
            raise InputError("an encoder-decoder reads two texts: give 'target' too, or use translate.")
        return model.network(_padded(model, text), _padded(model, target, target=True))
    if target is not None:
        raise InputError(f"'target' is for an encoder-decoder; this model is {model.purpose}.")
    return model.network(_padded(model, text))


def _padded(model: Model, given: Any, target: bool = False) -> Tensor:
    """One text or several as ids [B, T] where the network is, padded on the right."""
    if isinstance(given, Tensor):
        return (given[None] if given.ndim == 1 else given).to(model.device)
    texts = [as_text(text) for text in ([given] if is_one(given) else given)]
    if isinstance(model.network, Decoder):
        rows = text_ids(model, texts)
    elif isinstance(model.network, TextToText):
        rows = [_side(model, text, number, target) for number, text in enumerate(texts, 1)]
    else:
        framed = (model.tokenizer.encode(text, frame=True) if isinstance(text, str) else text for text in texts)
        rows = [as_ids(ids, number) for number, ids in enumerate(framed, 1)]
    if not rows or not all(rows):
        raise InputError("there must be at least one text, and each must have at least one token.")
    tensors = [torch.tensor(row) for row in rows]
    return pad_sequence(tensors, batch_first=True, padding_value=model.config.pad_id).to(model.device)


def _side(model: Model, text: Any, number: int, target: bool) -> list[int]:
    """A source, which ends with eos, or a target, which begins with bos; ids as they are."""
    if not isinstance(text, str):
        return as_ids(text, number)
    pipeline, config = model.pipeline, model.config
    ids = model.tokenizer.encode(pipeline.prepare_target(text) if target else pipeline.prepare_source(text))
    return [config.bos_id, *ids] if target else [*ids, config.eos_id]
