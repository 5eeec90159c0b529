"""Heads: how many there should be, where they look, and what they relate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from glassformer.errors import InputError
from glassformer.models.encoder_decoder import EncoderDecoder
from glassformer.studies.architectures.heads.counting import count_heads
from glassformer.studies.architectures.heads.drawing import draw
from glassformer.studies.architectures.heads.relations import observe
from glassformer.studies.architectures.heads.verdicts import claims, tables
from glassformer.studies.architectures.heads.words import Labelled, Watched, read_labelled
from glassformer.studies.study import Part, Result, Setting
from glassformer.tasks.model import Model

TRANSLATOR, SENTENCES = "multi30k-en-de", "all-minilm-l6-v2"

SHOWN = "While his wife is reading , the man is cooking soup ."
"""The sentence whose patterns are drawn: its German has other places for words."""


def run(setting: Setting) -> Result:
    """Small trainings, then the shipped translator and, where it is installed, MiniLM on the labelled sentences."""
    counts = count_heads(setting)
    labelled = read_labelled()
    sentences = labelled[: setting.pick(12, len(labelled), len(labelled))]
    setting.say(f"   {TRANSLATOR}")
    translator = Model.load(TRANSLATOR)
    watched = Watched(translator.network, translator.tokenizer)
    attention = observe(watched, sentences)
    torch.manual_seed(0)
    fresh = Watched(EncoderDecoder(translator.config), translator.tokenizer)
    attention["untrained"] = observe(fresh, sentences)["encoder"]
    if setting.scale != "toy":
        setting.say(f"   {SENTENCES}")
        attention |= _sentence_encoder(sentences)
    shown = next(each for each in labelled if " ".join(each.english) == SHOWN)
    return {"counts": counts, "attention": attention, "shown": _shown(watched, shown)}


def _sentence_encoder(sentences: Sequence[Labelled]) -> dict[str, Any]:
    """What MiniLM's heads do; nothing where it is not installed."""
    try:
        model = Model.load(SENTENCES)
    except InputError:
        return {}
    return observe(Watched(model.network, model.tokenizer), sentences)


def _shown(watched: Watched, sentence: Labelled) -> dict[str, Any]:
    """Tokens and patterns [L][H][Q][K] of one sentence, rounded: they are only drawn."""
    found = {}
    for kind, seen in watched.read(sentence).items():
        if kind != "decoder":
            queries, keys = (watched.tokenizer.tokens(side.ids) for side in (seen.queries, seen.keys))
            pattern = [[_rounded(head.tolist()) for head in layer] for layer in seen.pattern]
            found[kind] = {"queries": queries, "keys": keys, "pattern": pattern}
    return found


def _rounded(pattern: list[list[float]]) -> list[list[float]]:
    return [[round(value, 3) for value in row] for row in pattern]


PART = Part(
    name="heads",
    title="Heads",
    question="Attention looks through several heads at once, each with its own part of the width. Are many heads "
    "better than one? Do they look at different things, and at things that mean something to people?",
    method="(a) Small encoder-decoders with 1, 2, 4 and 8 heads and otherwise equal learn to write dates of many "
    "languages in ISO form, the same batches with the same learning rate for as many steps; test days are new in every "
    "language. (b) Entropy and mean distance of each head of the shipped translator, beside the same network with "
    "fresh weights, and of MiniLM. (c) For hand-labelled pairs of words in 84 made-up sentences: whether the most "
    "attention of the first word, among all other words, goes to the second. An attention from a word is the mean of "
    "its tokens', to a word the sum over its tokens; marks of beginning and end are left out. The best head is chosen "
    "on every other sentence and judged on the rest, and the other way round; so is its rival, the best fixed offset "
    "(such as: always the next word). That a head beats an offset does not say that it knows grammar: the nearest "
    "noun, say, may do as well.",
    run=run,
    draw=draw,
    tables=tables,
    claims=claims,
)
