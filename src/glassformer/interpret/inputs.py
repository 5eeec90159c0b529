"""What is looked into: texts made ready for a network, with the spans that can be named in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from glassformer.errors import InputError
from glassformer.interpret.expressions import Side
from glassformer.interpret.spans import Places, Range, Texts, tokens_of
from glassformer.models.decoder import Decoder
from glassformer.models.families import TEXT_TO_TEXT
from glassformer.tasks.inputs import as_ids, is_one
from glassformer.tasks.model import Model

Spans = Mapping[str, Sequence[Range]]
"""Names of spans, and for each text the characters [start, end) that it has there."""


Rows = slice | Tensor
"""Some of the texts, one after another or by number, and then also several times."""


@dataclass(frozen=True)
class Inputs:
    """Texts for a network: its `text` and, of an encoder-decoder, the `source`. `given` is what they were made of."""

    text: Texts
    source: Texts | None
    given: Any

    def __len__(self) -> int:
        return len(self.text.ids)

    def places(self, span: str, side: Side) -> Places:
        """The positions of a span in the texts of one side."""
        texts = self.source if side == "source" else self.text
        if texts is None:
            raise InputError("this network reads one text: it has no source.")
        return texts.places(span)

    def arguments(self, rows: Rows) -> tuple[Tensor, ...]:
        """What the network is called with for some of the texts, without the padding that they do not need."""
        sides = (self.text,) if self.source is None else (self.source, self.text)
        return tuple(side.ids[rows, : max(1, int(side.lengths[rows].max()))] for side in sides)

    @property
    def ends(self) -> Int[Tensor, n]:
        """The last position of every text: where the next word is said."""
        return self.text.lengths - 1


def prepare(
    model: Model | nn.Module, given: Any, target: Any = None, spans: Spans | None = None, written: Any = None
) -> Inputs:
    """Texts, ids or facts as `Inputs`. `spans` names characters of the texts (of the target, where there are two).

    `Inputs` are ready already. Anything with a `prompt` is read as that text, and its `subject`, which begins at
    character `start`, is a span. Raises `InputError` where a model wants a target, or ids without a tokenizer, or there
    is no text.
    """
    if isinstance(given, Inputs):
        return given
    items = _items(given)
    pair = isinstance(network_of(model), TEXT_TO_TEXT)
    if pair and target is None:
        raise InputError("an encoder-decoder reads two texts: give what it has written so far as 'target'.")
    if not pair and target is not None:
        raise InputError("'target' is for an encoder-decoder; this model reads one text.")
    if not pair:
        return Inputs(_texts(model, items, {**_subjects(items), **(spans or {})}, "one", written), None, given)
    targets = _items(target)
    if len(targets) != len(items):
        raise InputError(f"there are {len(items)} sources and {len(targets)} targets; give one for each.")
    source = _texts(model, items, _subjects(items), "source", None)
    return Inputs(_texts(model, targets, spans or {}, "target", written), source, given)


def network_of(model: Model | nn.Module) -> Any:
    """The network, of a model or as it is."""
    return model.network if isinstance(model, Model) else model


def repeated(inputs: Inputs, rows: Tensor) -> Inputs:
    """The texts `rows`, which may repeat."""

    def chosen(side: Texts) -> Texts:
        order = rows.tolist()

        def pick(values: Any) -> Any:
            return None if values is None else [values[row] for row in order]

        spans = {name: pick(ranges) for name, ranges in side.spans.items()}
        fields = {"texts": pick(side.texts), "characters": pick(side.characters), "written": pick(side.written)}
        return replace(side, ids=side.ids[rows], lengths=side.lengths[rows], spans=spans, **fields)

    source = None if inputs.source is None else chosen(inputs.source)
    return Inputs(chosen(inputs.text), source, [inputs.given, rows])


def _items(given: Any) -> list[Any]:
    if isinstance(given, Tensor):
        items = list(given[None] if given.ndim == 1 else given)
    elif (
        isinstance(given, str)
        or hasattr(given, "prompt")
        or (isinstance(given, Sequence) and len(given) and is_one(given))
    ):
        items = [given]
    elif isinstance(given, Sequence):
        items = list(given)
    else:
        raise InputError(f"give a text, ids, facts, or a list of them; got {type(given).__name__}.")
    if not items:
        raise InputError("there must be at least one text.")
    return items


def _subjects(items: Sequence[Any]) -> dict[str, Sequence[Range]]:
    """The characters of each fact's subject."""
    if not all(hasattr(item, "subject") and hasattr(item, "prompt") for item in items):
        return {}
    return {"subject": [(item.start, item.start + len(item.subject)) for item in items]}


def _texts(model: Model | nn.Module, items: Sequence[Any], spans: Spans, role: str, written: Any) -> Texts:
    strings = [item if isinstance(item, str) else getattr(item, "prompt", None) for item in items]
    rows: list[list[int]] = []
    characters: list[list[Range]] = []
    for number, (item, text) in enumerate(zip(items, strings, strict=True), 1):
        ids, ranges = (as_ids(item, number), []) if text is None else _encoded(model, text, role)
        if not ids:
            raise InputError(f"text {number} has no token.")
        rows.append(ids)
        characters.append(ranges)
    config = network_of(model).config
    size = config.vocab_size if role != "source" else getattr(config, "source_vocab_size", None) or config.vocab_size
    for number, ids in enumerate(rows, 1):
        if max(ids) >= size or min(ids) < 0:
            raise InputError(f"text {number} has an id outside of the model's {size}.")
    device = next(network_of(model).parameters()).device
    padded = pad_sequence([torch.tensor(ids) for ids in rows], batch_first=True, padding_value=config.pad_id or 0)
    lengths = torch.tensor([len(ids) for ids in rows], device=device)
    named: dict[str, Sequence[Range]] = {}
    texts = [text for text in strings if text is not None]
    if len(texts) == len(items):
        named["prompt"] = [(0, len(ids)) if written is None else (0, written[i]) for i, ids in enumerate(rows)]
        for name, ranges_of in spans.items():
            named[name] = [tokens_of(each, span) for each, span in zip(characters, ranges_of, strict=True)]
        return Texts(padded.to(device), lengths, named, texts, characters, written)
    if spans:
        raise InputError("spans are characters of texts; with ids, say positions instead.")
    return Texts(padded.to(device), lengths, named, written=written)


def _encoded(model: Model | nn.Module, text: str, role: str) -> tuple[list[int], list[Range]]:
    """The ids that the network reads for a text, and the characters that each stands for; a frame's stand for none."""
    if not isinstance(model, Model):
        raise InputError("a bare network reads ids; give a Model for texts.")
    tokenizer, pipeline, config = model.tokenizer, model.pipeline, model.config
    if role == "one":
        text = text.lower() if pipeline.lowercase else text
        ids, ranges = tokenizer.encode_spans(text)
        framed = tokenizer.encode(text, frame=True)
        if isinstance(model.network, Decoder) and len(framed) > 1 and framed[-1] in model.ends:
            framed = framed[:-1]
        begin = next((i for i in range(len(framed)) if framed[i : i + len(ids)] == ids), 0) if ids else 0
        after = len(framed) - begin - len(ids)
        return framed, [(0, 0)] * begin + ranges + [(0, 0)] * after
    prepared = pipeline.prepare_target(text) if role == "target" else pipeline.prepare_source(text)
    ids, ranges = tokenizer.encode_spans(prepared)
    if prepared != text:
        ranges = [(0, 0)] * len(ranges)  # the pipeline moved the characters; words cannot be found
    if role == "target":
        return [config.bos_id, *ids], [(0, 0), *ranges]
    return [*ids, config.eos_id], [*ranges, (0, 0)]
