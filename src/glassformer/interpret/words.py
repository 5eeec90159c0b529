"""From states to words, as a network's own head says them, and from answers to the tokens that they begin with."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from glassformer.errors import InputError
from glassformer.interpret.inputs import Inputs, network_of, prepare
from glassformer.interpret.shots import joined
from glassformer.layers.block import Stack
from glassformer.models.decoder import Decoder
from glassformer.models.encoder import Encoder
from glassformer.models.encoder_decoder import EncoderDecoder
from glassformer.models.heads import WordHead
from glassformer.tasks.model import Model

Answers = str | int | Sequence[str] | Sequence[int] | Tensor
"""Words or token ids: one for all texts, or one for each."""


def word_stack(network: nn.Module) -> tuple[Stack, str]:
    """The stack whose last states become words, and what its sites' names begin with.

    Raises `InputError` for a network without a residual stream, and for a head that says no words.
    """
    if isinstance(network, Decoder) or (isinstance(network, Encoder) and isinstance(network.head, WordHead)):
        return network.stack, ""
    if isinstance(network, EncoderDecoder):
        return network.decoder, "decoder."
    if isinstance(network, Encoder):
        choice = type(network.config.head).__name__
        raise InputError(
            f"this needs a head that says words; the model's is for {choice}: take a decoder, an encoder-decoder or a "
            "masked language model."
        )
    raise InputError(f"this needs the residual stream of a Transformer; a {type(network).__name__} has none.")


def say(network: Any, states: Float[Tensor, "*B D"]) -> Float[Tensor, "*B V"]:
    """The logits of words that the network would say, were these the states after its last layer: final norm, if it
    has one, and head."""
    stack, _ = word_stack(network)
    hidden = states if stack.final_norm is None else stack.final_norm(states)
    if isinstance(network, EncoderDecoder) and network.config.scale_head:
        hidden = hidden * network.config.d_model**-0.5
    logits: Tensor = network.head(hidden)
    return logits


def first_tokens(model: Any, inputs: Inputs, answers: Answers | None = None) -> Int[Tensor, n]:
    """The token that the answer to each text begins with. Without `answers` the texts must be facts, which bring them.

    Of words it is the first token that the text with its answer has and the text has not, a space between the two
    (`gate.answer_ids`); of a masked language model, which does not go on from a text, the first token of the words.
    Raises `InputError` for another number of answers than of texts, ids that the vocabulary does not have, and words
    where they cannot be read: for a bare network, after ids, or where the text's tokens change when they follow.
    """
    given = _given(inputs, answers)
    if len(given) != len(inputs):
        raise InputError(f"there are {len(inputs)} texts and {len(given)} answers; give one for each, or one for all.")
    if all(isinstance(answer, str) for answer in given):
        given = _begun(model, inputs, given)
    size = network_of(model).config.vocab_size
    for answer in given:
        if isinstance(answer, bool) or not isinstance(answer, Integral) or not 0 <= int(answer) < size:
            raise InputError(f"an answer must be words, or a token's id from 0 to {size - 1}; got {answer!r}.")
    return torch.tensor([int(answer) for answer in given], device=inputs.text.ids.device)


def shown(model: Any, token: int) -> str:
    """A token as people read it, in quotes where it is blank; of a bare network, its number."""
    if not isinstance(model, Model):
        return str(token)
    text = model.tokenizer.decode([token], skip_specials=False) or model.tokenizer.tokens([token])[0]
    return text if text.strip() and text.isprintable() else repr(text)


def _given(inputs: Inputs, answers: Answers | None) -> list[Any]:
    if answers is None:
        items = [inputs.given] if hasattr(inputs.given, "prompt") else inputs.given
        if not isinstance(items, Sequence) or not all(hasattr(item, "answers") for item in items):
            raise InputError("say the answers, words or token ids: only facts bring their own.")
        return [item.answers[0] for item in items]
    if isinstance(answers, Tensor):
        answers = answers.tolist()
    return [answers] * len(inputs) if isinstance(answers, str | int) else list(answers)


def _begun(model: Any, inputs: Inputs, answers: Sequence[str]) -> list[int]:
    if not isinstance(model, Model):
        raise InputError("a bare network reads ids: give the answers as token ids.")
    if isinstance(model.network, Encoder):
        lower = model.pipeline.lowercase
        encoded = [model.tokenizer.encode(answer.lower() if lower else answer) for answer in answers]
        return [_first(ids, answer) for ids, answer in zip(encoded, answers, strict=True)]
    texts = inputs.text.texts
    if texts is None:
        raise InputError("the texts are ids: give the answers as token ids, too.")
    wholes = [joined(text, answer) if text else answer for text, answer in zip(texts, answers, strict=True)]
    if inputs.source is None:
        after = prepare(model, wholes).text
    else:
        sources = [row[: int(length)] for row, length in zip(inputs.source.ids, inputs.source.lengths, strict=True)]
        after = prepare(model, sources, wholes).text
    found = []
    for row, answer in enumerate(answers):
        length = int(inputs.text.lengths[row])
        ids, before = after.ids[row, : int(after.lengths[row])].tolist(), inputs.text.ids[row, :length].tolist()
        if ids[:length] != before:
            raise InputError(
                f"text {row + 1}: its tokens must stay as they are when the answer {answer!r} follows; let it end with "
                f"a whole word, without a space: {texts[row][-40:]!r}."
            )
        found.append(_first(ids[length:], answer))
    return found


def _first(ids: Sequence[int], answer: str) -> int:
    if not ids:
        raise InputError(f"the answer {answer!r} has no token.")
    return ids[0]
