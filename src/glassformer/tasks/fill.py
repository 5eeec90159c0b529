"""The verb `fill`: the words that a masked language model puts for a mask."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from glassformer.errors import InputError
from glassformer.generation.decoding import evaluation
from glassformer.models.config import MaskedLM
from glassformer.models.encoder import Encoder

if TYPE_CHECKING:
    from glassformer.tasks.model import Model


@dataclass(frozen=True)
class Fill:
    """One word for a mask: the `token` as the vocabulary writes it, the `text` with it in the mask's place (other
    masks stay), and its `probability` among all tokens."""

    token: str
    text: str
    probability: float


def fill(model: Model, text: str, top: int) -> list[Fill] | list[list[Fill]]:
    """See `Model.fill`."""
    head = getattr(model.config, "head", None)
    if not isinstance(model.network, Encoder) or not (head is None or isinstance(head, MaskedLM)):
        raise InputError(f"'fill' wants a model that fills masks; this one is {model.purpose}.")
    if top < 1:
        raise InputError(f"'top' must be at least 1, got {top}.")
    mask_id = model.tokenizer.mask_id
    if mask_id is None:
        raise InputError("this model's tokenizer has no mask token: there is nothing to fill.")
    mask = model.tokenizer.tokens([mask_id])[0]
    ids = model.tokenizer.encode(text, frame=True, read_specials=True)
    places = [place for place, token in enumerate(ids) if token == mask_id]
    if not places:
        raise InputError(f'the text must have a mask, which this model writes {mask}: "... {mask} ...".')
    if len(ids) > model.config.max_length:
        raise InputError(
            f"the text has {len(ids)} tokens, the model reads at most {model.config.max_length}: shorten it."
        )
    with torch.inference_mode(), evaluation(model.network):
        logits = model.network(torch.tensor([ids], device=model.device)).logits[0, places]
        best = logits.float().softmax(-1).topk(min(top, logits.shape[-1]))
    rows = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    found = [_fills(model, text.split(mask), number, *row) for number, row in enumerate(rows)]
    return found[0] if len(found) == 1 else found


def _fills(model: Model, parts: list[str], number: int, ids: list[int], probabilities: list[float]) -> list[Fill]:
    """The words for mask `number` of a text that the masks cut into `parts`."""
    mask = model.tokenizer.tokens([model.tokenizer.mask_id or 0])[0]
    before, after = mask.join(parts[: number + 1]), mask.join(parts[number + 1 :])
    tokens = model.tokenizer.tokens(ids)
    words = [model.tokenizer.decode([i], skip_specials=False).strip() for i in ids]
    return [
        Fill(token, before.rstrip() + word[2:] + after if word.startswith("##") else before + word + after, probability)
        for token, word, probability in zip(tokens, words, probabilities, strict=True)
    ]
