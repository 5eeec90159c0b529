"""What a network reads of one text, with the tokens as people can read them; and what passes its sites meanwhile."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torch import nn

from glassformer.errors import InputError
from glassformer.interpret.inputs import Inputs, prepare
from glassformer.interpret.trace import Trace, trace
from glassformer.layers.sites import share
from glassformer.models.config import Classification, MaskedLM
from glassformer.models.convolutional import Convolutional
from glassformer.models.decoder import Decoder
from glassformer.models.encoder import Encoder
from glassformer.models.encoder_decoder import EncoderDecoder
from glassformer.models.families import TEXT_TO_TEXT
from glassformer.models.recurrent import Recurrent
from glassformer.tasks.inputs import text_ids
from glassformer.tasks.model import Model
from glassformer.text.tokenizer import Tokenizer

MOST_TOKENS = 128
"""A page shows texts of up to so many tokens: a pattern has their square in numbers, for each head."""

BROKEN = "\ufffd"


@dataclass(frozen=True)
class Reading:
    """What a network is given for a text. `ids` are those of its only stack, or of the encoder; `written` are the
    target's, where there is one: the decoder reads `start`, then all of them but the last, and writes them all."""

    ids: tuple[int, ...]
    written: tuple[int, ...] = ()
    start: int = 0

    @property
    def read(self) -> tuple[int, ...]:
        """What the decoder of an encoder-decoder reads."""
        return (self.start, *self.written[:-1])

    def inputs(self, network: nn.Module) -> Inputs:
        """The text, ready for the network."""
        return prepare(network, [self.ids], [self.read] if self.written else None)


def reading(model: Model, text: str, target: str | None = None) -> Reading:
    """What `model` reads of `text`, and of `target` where it writes one: by default its own, by greedy search.

    Raises `InputError` for an empty text, for one of more than `MOST_TOKENS` tokens or than the model's positions, and
    for a `target` that is given to a model which has none.
    """
    if isinstance(model.network, TEXT_TO_TEXT):
        source = _checked(model, "text", [*model.tokenizer.encode(model.pipeline.prepare_source(text)), *_end(model)])
        written = _checked(model, "target", _written(model, text, target))
        return Reading(source, written, model.config.bos_id)
    if target is not None:
        raise InputError(f"a target is for an encoder-decoder; this model is {model.purpose}. Leave it out.")
    if isinstance(model.network, Decoder):
        return Reading(_checked(model, "text", text_ids(model, [text])[0]))
    text = text.lower() if model.pipeline.lowercase else text
    return Reading(_checked(model, "text", model.tokenizer.encode(text, frame=True, read_specials=fills(model))))


def _written(model: Model, text: str, target: str | None) -> list[int]:
    if target is not None:
        return [*model.tokenizer.encode(model.pipeline.prepare_target(target)), *_end(model)]
    return list(model.translate(text, beam=1, max_length=_most(model)).ids)


def _most(model: Model) -> int:
    return min(MOST_TOKENS, model.config.max_length)


def _end(model: Model) -> list[int]:
    return [model.config.eos_id]


def _checked(model: Model, side: str, ids: Sequence[int]) -> tuple[int, ...]:
    most = _most(model)
    if not ids or list(ids) == _end(model):
        raise InputError(f"the {side} has no tokens to look at: give at least one word.")
    if len(ids) > most:
        whose = "the page shows" if most == MOST_TOKENS else "the model reads"
        raise InputError(f"the {side} has {len(ids)} tokens, {whose} at most {most}: give a shorter part of it.")
    return tuple(ids)


def fills(model: Model) -> bool:
    """Whether the model is an encoder that says words: one with a masked language model's head."""
    return isinstance(model.network, Encoder) and isinstance(model.config.head or MaskedLM(), MaskedLM)


def says_words(model: Model) -> bool:
    """Whether the last states of the model's residual stream are turned into words."""
    return isinstance(model.network, Decoder | EncoderDecoder) or fills(model)


def classifies(model: Model) -> bool:
    """Whether the model is an encoder that gives a text one of several labels."""
    return isinstance(model.network, Encoder) and isinstance(model.config.head, Classification)


def family(model: Model) -> str:
    """The network's kind, as the page says it."""
    kinds = {Decoder: "decoder", Encoder: "encoder", Recurrent: "recurrent network", Convolutional: "convolutions"}
    return kinds.get(type(model.network), "encoder-decoder")


def seen(network: nn.Module, given: Reading, *expressions: str) -> Trace:
    """What passes these places while the network reads. It may be in training: the copy that reads is not."""
    return trace(share(network).eval(), given.inputs(network), *expressions)


class Spelling:
    """Tokens as people read them: `" dog"` for GPT-2's `Ġdog` and for `▁dog`; a part of a character stays as it is."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._by_bytes = tokenizer.id_of("Ġ") is not None  # how byte-level vocabularies write the space's byte
        self._known: dict[int, str] = {}

    def __call__(self, ids: Iterable[int]) -> list[str]:
        return [self._one(int(i)) for i in ids]

    def _one(self, i: int) -> str:
        if i not in self._known:
            self._known[i] = self._spell(i)
        return self._known[i]

    def _spell(self, i: int) -> str:
        if i >= self._tokenizer.vocab_size:  # a head may be wider than the vocabulary, to be a round number
            return f"<{i}>"
        token = self._tokenizer.tokens([i])[0]
        if not self._by_bytes:
            return token.replace("▁", " ")
        shown = self._tokenizer.decode([i], skip_specials=False)
        return token if BROKEN in shown or not shown else shown
