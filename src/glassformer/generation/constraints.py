"""Text that must follow a JSON schema: which tokens a grammar allows next, by the library llguidance."""

import importlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from glassformer.errors import InputError
from glassformer.text.tokenizer import Tokenizer

_WHITE_SPACE = r"\x20|\x0A\x20{0,12}"


class Place:
    """How far one text has come in a grammar."""

    def __init__(self, matcher: Any, vocab_size: int) -> None:
        self._matcher = matcher
        self._vocab_size = vocab_size

    def allowed(self) -> Bool[Tensor, "V"]:
        """Where a token may come next."""
        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        self._check()
        return torch.from_numpy(np.unpackbits(bits, count=self._vocab_size, bitorder="little").astype(bool))

    def accept(self, token: int) -> None:
        """Go on by a token that was allowed."""
        self._matcher.consume_token(token)
        self._check()

    @property
    def ended(self) -> bool:
        """Whether nothing may follow."""
        return bool(self._matcher.is_stopped())

    def _check(self) -> None:
        if self._matcher.is_error():
            raise InputError(f"the JSON schema cannot be followed further: {self._matcher.get_error()}.")


class JsonSchema:
    """A JSON schema as a grammar over a tokenizer's ids; `start` gives each text its own place in it.

    `tokens` are what `grammar_tokens` made of the tokenizer; `vocab_size` is the network's. White space between the
    parts of the JSON is one space, or a new line with up to twelve spaces: a model cannot lose itself in it. Raises
    `InputError` for what is no JSON schema, and for one that asks for what the library cannot follow.
    """

    def __init__(self, schema: str | Mapping[str, Any], tokens: Any, vocab_size: int) -> None:
        self._tokens, self._vocab_size = tokens, vocab_size
        self._matcher = _library().LLMatcher
        text = _read(schema)
        try:
            self._grammar = self._matcher.grammar_from_json_schema(text, defaults={"whitespace_pattern": _WHITE_SPACE})
            problem = self._matcher.validate_grammar(self._grammar, tokens)
        except ValueError as error:
            problem = str(error)
        if problem:
            raise InputError(f"this JSON schema cannot be followed: {problem.strip()}.")

    def start(self) -> Place:
        """The beginning of a text."""
        return Place(self._matcher(self._tokens, self._grammar, log_level=0), self._vocab_size)


def grammar_tokens(tokenizer: Tokenizer, vocab_size: int, eos_ids: Sequence[int]) -> Any:
    """A tokenizer as the library wants it; takes about a second for a large vocabulary.

    Raises `InputError` without llguidance, without a token that ends a text, and for a tokenizer that it cannot read.
    """
    library = _library()
    ids = [token for token in eos_ids if 0 <= token < vocab_size]
    if not ids:
        raise InputError("a JSON schema needs an end-of-text token to end with: give the model's 'eos_ids'.")
    size = max(vocab_size, tokenizer.vocab_size)
    try:
        return library.LLTokenizer(tokenizer._backend.to_str(), n_vocab=size, eos_token=ids)
    except ValueError as error:
        raise InputError(f"this model's tokenizer does not go with a JSON schema: {error}.") from None


def _read(schema: str | Mapping[str, Any]) -> str:
    """The schema as JSON text, seen to be an object."""
    try:
        content = json.loads(schema) if isinstance(schema, str) else schema
        if not isinstance(content, Mapping):
            raise InputError(f'\'json_schema\' must be an object such as {{"type": "object"}}, got {content!r}.')
        return json.dumps(content)
    except (TypeError, ValueError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"'json_schema' is not JSON: {error}.") from None


def _library() -> Any:
    try:
        return importlib.import_module("llguidance")
    except ImportError:
        raise InputError("text by a JSON schema needs llguidance: pip install 'glassformer[schema]'.") from None
