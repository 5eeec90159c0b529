"""What happens to text before it is tokenised and after it is generated: stored with every model and applied by it."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Literal, cast

from glassformer.errors import InputError

if TYPE_CHECKING:
    from sacremoses import MosesDetokenizer, MosesPunctNormalizer, MosesTokenizer

# Marks of writing direction: they come with copied text, nobody types them, and no model has learnt them.
_INVISIBLE = re.compile("[\u200e\u200f\u061c\u202a-\u202e\u2066-\u2069\ufeff]")


@dataclass(frozen=True)
class TextPipeline:
    """Text as the model was trained on it, from natural text, and natural text again from the model's.

    In this order: Unicode normalisation (with marks of writing direction removed and all white space made single
    spaces), then, if asked for, lowercasing, then with `moses` the scripts that machine translation has used since
    2007, by sacremoses: punctuation normalised, tokens separated by spaces and XML-escaped (`&apos;`). With
    `lowercase` and `moses` that gives the published form of Multi30k, `*.lc.norm.tok.*`.

    `chat_template`, in the language of Jinja, turns a conversation into a prompt; what continues or embeds text reads
    it as it is, and knows nothing else of this. `prompt`, which holds {text} once, is what a decoder that summarizes
    reads, with the document in that place.

    `source` and `target` are language codes; only `moses` needs them. What is lowercased stays so: nothing restores
    capitals.
    """

    source: str = ""
    target: str = ""
    lowercase: bool = False
    moses: bool = False
    unicode: Literal["NFC", "NFKC", "none"] = "NFC"
    chat_template: str = ""
    prompt: str = ""

    def __post_init__(self) -> None:
        if self.moses and not (self.source and self.target):
            raise InputError("'moses' needs the languages: set 'source' and 'target' to codes like \"en\" and \"de\".")

    def prepare_source(self, text: str) -> str:
        """A sentence of the source language, ready for the tokenizer."""
        return self._prepare(text, self.source)

    def prepare_target(self, text: str) -> str:
        """A sentence of the target language, ready for the tokenizer (training data, references)."""
        return self._prepare(text, self.target)

    def finish_target(self, text: str) -> str:
        """A generated sentence as people write it: with `moses`, unescaped and tokens joined."""
        text = " ".join(text.split())
        if not self.moses or not text:
            return text
        return str(_detokenizer(self.target).detokenize(text.split(" "), return_str=True, unescape=True)).strip()

    def _prepare(self, text: str, language: str) -> str:
        if self.unicode != "none":
            text = _INVISIBLE.sub("", unicodedata.normalize(self.unicode, text))
        text = " ".join(text.split())
        if self.lowercase:
            text = text.lower()
        if not self.moses or not text:
            return text
        normal = _normalizer(language).normalize(text)
        return cast("str", _tokenizer(language).tokenize(normal, return_str=True, escape=True))


# One of each for a language: they compile some hundred regular expressions. sacremoses is imported here, when the
# first text needs it, and does not change its objects afterwards, so threads share them.
@lru_cache(maxsize=16)
def _normalizer(language: str) -> MosesPunctNormalizer:
    from sacremoses import MosesPunctNormalizer

    return MosesPunctNormalizer(language)


@lru_cache(maxsize=16)
def _tokenizer(language: str) -> MosesTokenizer:
    from sacremoses import MosesTokenizer

    return MosesTokenizer(language)


@lru_cache(maxsize=16)
def _detokenizer(language: str) -> MosesDetokenizer:
    from sacremoses import MosesDetokenizer

    return MosesDetokenizer(language)
