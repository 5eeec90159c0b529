"""Documents: what happens in a model while it reads one text, as JSON that a page can draw without anything else.

Every document has `"view"`, `"version": 1` (a change that an older page could not draw raises it), and

    model: the model's name, or ""          text: the text as it was given
    family: "decoder", "encoder-decoder"... shape: the network in a few words
    missing: why the model's family has no such view; then the document ends here

Tokens are strings; numbers have four digits behind the point. L layers, H heads, Q queries, K keys, T positions.

`"attention"` has `maps`, one for each attention of the model, and `tag_rule`, what a tag means, in words. A map has

    site: such as "decoder.cross_attention.pattern"; `title`: the same in words; `cross`: whether it looks at a source
    queries [Q], keys [K]: tokens           patterns [L][H][Q][K]: shares; a row may end early, the rest is 0
    tags [L][H]: a list of words for each head of self-attention

In cross-attention the queries are the tokens that are being written, which the decoder has not read yet.

`"lens"` reads the residual stream after every block as if it were the last (nostalgebraist 2020):

    question: what a cell says, in words    readout: what turned a state into words, in words
    tokens [T]: what the stack read         sites [L + 1]: the rows, from what enters the first block on
    words, probabilities [L + 1][T][5]: the most probable words, the best first
    answers [T]: the model's own best word  ranks [L + 1][T]: the place of that word among all, from 1

`"patching"` replaces one position of the residual stream by that of another text, and says how far the answer follows:

    tokens, other_tokens [T]: both texts    other_text: the other text as it was given
    sites [L + 1]: as in the lens           metric: what was measured, in words
    answers [2]: what each text leads to    start, end: the metric in the text, and in the other
    effects [L + 1][T]: 0 where the metric stays as in the text, 1 where it becomes that of the other
    parts: the same for what is added to the stream: [{part: "attention" or "mlp", sites [L], effects [L][T]}]

`"tokens"` (`serving.surprisal`) says how probable the model found what it read, or what an encoder-decoder writes:

    side: "text", or "target" beside which `source` has the tokens of the source; question: when it was asked, in words
    tokens [T]                              unscored: why no token has numbers, where none has
    probabilities, ranks, surprisals [T]: of the token, rank from 1, −log₂ p in bits; null where nothing was asked
    words, shares [T][5]: the most probable words in this place and their probabilities, the best first; or null

The views "positions", "truth" and "walk" are described where they are made, in the modules of these names.

A page may ask for `patterns` packed: {shape: [L, H, Q, K], ten_thousandths: base64 of little-endian 16-bit numbers}.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from glassformer.errors import InputError
from glassformer.interpret.inputs import Inputs
from glassformer.interpret.lens import lens
from glassformer.interpret.words import word_stack
from glassformer.models.encoder_decoder import EncoderDecoder
from glassformer.serving.passes import Pass, one_pass
from glassformer.serving.patches import answered_at, patch_everywhere, stream_sites
from glassformer.serving.progress import Progress
from glassformer.serving.readings import Reading, Spelling, classifies, family, fills, reading, says_words, seen
from glassformer.serving.tags import RULE, head_tags
from glassformer.tasks.model import Model

VERSION = 1
TOP = 5
DIGITS = 4

Document = dict[str, Any]

TITLES = {
    "self_attention": "self-attention",
    "encoder.self_attention": "self-attention of the encoder",
    "decoder.self_attention": "self-attention of the decoder",
    "decoder.cross_attention": "cross-attention: from the target to the source",
}


def documents(
    model: Model, text: str, *, target: str | None = None, source_text: str | None = None, name: str = ""
) -> list[Document]:
    """All documents of one text: attention, lens and, with a `source_text` to patch from, patching. `name` is what
    the page calls the model. Raises `InputError` as `reading` and `patching_document` do."""
    passed = one_pass(model, text, target)
    found = [_attention(model, passed), _lens(model, passed.reading)]
    if source_text is not None:
        found.append(_patching(model, text, source_text, Progress()))
    return [headed(model, text, one, name) for one in found]


def attention_document(
    model: Model, text: str, target: str | None = None, *, packed: bool = False, passed: Pass | None = None
) -> Document:
    """Where every head looks; `target` is what an encoder-decoder is to write, by default its own (greedy search).
    `packed` patterns are quicker to make and to read; `passed` is what has passed already in this text. Raises
    `InputError` for a text that is empty or has more than `readings.MOST_TOKENS` tokens."""
    return headed(model, text, _attention(model, passed or one_pass(model, text, target), packed))


def lens_document(model: Model, text: str, target: str | None = None) -> Document:
    """What the residual stream says after every block; texts as in `attention_document`."""
    return headed(model, text, _lens(model, reading(model, text, target)))


def patching_document(
    model: Model,
    text: str,
    source_text: str,
    progress: Progress = Progress(),  # noqa: B008 - it is frozen
) -> Document:
    """How far the answer to `text` goes over to that of `source_text` when one position of one layer is patched.

    Raises `InputError` for texts of unequal numbers of tokens, for texts that the model answers alike, and, where the
    answer is the word for a mask, for texts without one mask in the same place.
    """
    return headed(model, text, _patching(model, text, source_text, progress))


def headed(model: Model, text: str, rest: Document, name: str = "") -> Document:
    """A document: what every one begins with, and the `rest`, which says its "view"."""
    about = {"model": name, "family": family(model), "shape": model.config.shape, "text": text}
    return {"view": rest["view"], "version": VERSION, **about, **rest}


# --- Attention --------------------------------------------------------------------------------------------------------


def _attention(model: Model, passed: Pass, packed: bool = False) -> Document:
    if not passed.patterns:
        return {"view": "attention", "missing": "this model was made without attention."}
    spelled, written = Spelling(model.tokenizer), _packed if packed else _nested
    maps = [
        _map(site, patterns, passed.reading, spelled) | {"patterns": written(patterns)}
        for site, patterns in passed.patterns.items()
    ]
    return {"view": "attention", "tag_rule": RULE, "maps": maps}


def _map(site: str, patterns: Tensor, given: Reading, spelled: Spelling) -> Document:
    """What the document says of one attention with `patterns` [L, H, Q, K], but for these."""
    attention = site.removesuffix(".pattern")
    cross = attention.endswith("cross_attention")
    keys = given.read if attention == "decoder.self_attention" else given.ids
    queries = given.written if cross else keys
    shown: Document = {"site": site, "title": TITLES[attention], "cross": cross}
    shown |= {"queries": spelled(queries), "keys": spelled(keys)}
    if not cross:
        shown["tags"] = [head_tags(layer, keys) for layer in patterns]
    return shown


def _nested(patterns: Tensor) -> Any:
    return [[[shortened(row) for row in head] for head in layer] for layer in rounded(patterns)]


def _packed(patterns: Tensor) -> Document:
    units = (patterns.double() * 10**DIGITS).round().to(torch.int32).numpy().astype("<u2")
    return {"shape": list(patterns.shape), "ten_thousandths": base64.b64encode(units.tobytes()).decode()}


def rounded(values: Tensor) -> Any:
    """The numbers as nested lists, with `DIGITS` digits behind the point."""
    shift = 10.0**DIGITS
    return ((values.double() * shift).round() / shift + 0.0).tolist()  # + 0.0: no minus before a zero


def shortened(row: list[float]) -> list[float]:
    """Without the zeros at its end: half of a causal pattern."""
    end = len(row)
    while end and row[end - 1] == 0:
        end -= 1
    return row[:end]


# --- Lens -------------------------------------------------------------------------------------------------------------


def _lens(model: Model, given: Reading) -> Document:
    if not says_words(model):
        why = "the last states of this model are not turned into words" if family(model) == "encoder" else _NO_STREAM
        return {"view": "lens", "missing": f"{why}; no layer can be read as if it were the last."}
    network = model.network
    stack, prefix = word_stack(network)
    names = stream_sites(len(stack.blocks), prefix)
    places = [f"{name} @ *" for name in names]
    kept = seen(network, given, *places)
    logits = [lens(kept, at=place).logits[0, 0].cpu() for place in places]
    answers = logits[-1].argmax(-1)
    best = [each.softmax(-1).topk(min(TOP, each.shape[-1])) for each in logits]
    spelled = Spelling(model.tokenizer)
    return {
        "view": "lens",
        "question": "the word that stands here" if fills(model) else "the word that comes next",
        "readout": _readout_in_words(network, stack),
        "tokens": spelled(given.read if given.written else given.ids),
        "sites": names,
        "words": [[spelled(cell) for cell in each.indices.tolist()] for each in best],
        "probabilities": [rounded(each.values) for each in best],
        "answers": spelled(answers.tolist()),
        "ranks": [((each > each.gather(-1, answers[:, None])).sum(-1) + 1).tolist() for each in logits],
    }


_NO_STREAM = "this view is of a Transformer's residual stream, and this model is of another kind"


def _readout_in_words(network: Any, stack: Any) -> str:
    head = "the head" if isinstance(network.head, nn.Linear) else "the head for masked words"
    if stack.final_norm is None:
        return f"{head} on the residual stream itself, which every block of this model normalises"
    return f"the final norm, then {head}"


# --- Patching ---------------------------------------------------------------------------------------------------------


def _patching(model: Model, text: str, source_text: str, progress: Progress) -> Document:
    if not says_words(model) and not classifies(model):
        why = "this model gives no answer in words" if family(model) == "encoder" else _NO_STREAM
        return {"view": "patching", "missing": f"{why}; there is nothing to follow when a state is patched."}
    texts = reading(model, text), reading(model, source_text)
    spelled = Spelling(model.tokenizer)
    tokens, others = (spelled(each.ids) for each in texts)
    if len(tokens) != len(others):
        raise InputError(
            f"the text has {len(tokens)} tokens and the one to patch from has {len(others)}: position by position only "
            f"texts of equal length can be patched; reword one of them. They are {tokens} and {others}."
        )
    inputs, answers, place = _question(model, *texts)
    prefix = "encoder." if isinstance(model.network, EncoderDecoder) else ""
    found = patch_everywhere(model.network, prefix, *inputs, answers, progress)
    if found is None:
        raise InputError("the model answers both texts alike, so that nothing can be followed; give another text.")
    labels = model.config.head.labels if classifies(model) else None
    words = [labels[i] for i in found.answers] if labels else spelled(found.answers)
    return {
        "view": "patching",
        "other_text": source_text,
        "tokens": tokens,
        "other_tokens": others,
        "sites": found.parts[0].sites,
        "metric": "the logit of “{1}” minus the logit of “{0}” {place}".format(*map(_bare, words), place=place),
        "answers": words,
        "start": round(found.start, DIGITS),
        "end": round(found.end, DIGITS),
        "effects": rounded(found.parts[0].effects),
        "parts": [{"part": one.part, "sites": one.sites, "effects": rounded(one.effects)} for one in found.parts[1:]],
    }


def _bare(answer: str) -> str:
    """Without the space before it, unless that is all it is."""
    return answer.strip() or answer


Question = tuple[tuple[Inputs, Inputs], tuple[int, int] | None, str]
"""Both texts, the answers to compare where they are known beforehand, and where these stand, in words."""


def _question(model: Model, first: Reading, second: Reading) -> Question:
    if isinstance(model.network, EncoderDecoder):
        return _translation(model, first, second)
    inputs = first.inputs(model.network), second.inputs(model.network)
    if classifies(model):
        return inputs, None, "among the labels"
    if not fills(model):
        return inputs, None, "after the last token"
    place = _mask_place(model, first.ids, second.ids)
    return (answered_at(inputs[0], place), answered_at(inputs[1], place)), None, "in the place of the mask"


def _mask_place(model: Model, ids: Sequence[int], others: Sequence[int]) -> int:
    mask = model.tokenizer.mask_id
    places = [[place for place, i in enumerate(each) if i == mask] for each in (ids, others)]
    if mask is None or len(places[0]) != 1 or places[0] != places[1]:
        shown = "a mask" if mask is None else model.tokenizer.tokens([mask])[0]
        raise InputError(
            f"this model answers with the word for a mask: both texts must have {shown} once, in the same place; it is "
            f"at the positions {places[0]} and {places[1]}."
        )
    return places[0][0]


def _translation(model: Model, first: Reading, second: Reading) -> Question:
    """The answer is the first token in which the two translations differ."""
    pairs = zip(first.written, second.written, strict=False)
    place = next((place for place, (one, other) in enumerate(pairs) if one != other), None)
    if place is None:
        raise InputError("the model writes the same for both texts, so that no answer can change; give another text.")
    one, other = (replace(each, written=each.written[: place + 1]) for each in (first, second))
    before = model.tokenizer.decode(first.written[:place])
    where = f"after “{before}”, where the two translations part" if before else "as the first token"
    inputs = one.inputs(model.network), other.inputs(model.network)
    return inputs, (first.written[place], second.written[place]), where
