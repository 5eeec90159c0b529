"""Text by a JSON schema parses and holds to it, whatever the model would rather say."""

import json
import sys
from typing import Any

import pytest
from generation.small_decoders import END, byte_level, decoder

from glassformer.errors import InputError
from glassformer.generation.constraints import JsonSchema, grammar_tokens
from glassformer.generation.engine import Engine, generate
from glassformer.generation.requests import Request
from glassformer.generation.sampling import Sampling

pytest.importorskip("llguidance")

SCHEMA = {
    "type": "object",
    "properties": {
        "colour": {"enum": ["red", "blue"]},
        "n": {"type": "integer", "minimum": 0, "maximum": 99},
        "tags": {"type": "array", "items": {"type": "string", "maxLength": 3}, "maxItems": 2},
    },
    "required": ["colour", "n", "tags"],
    "additionalProperties": False,
}


def schema_of(schema: Any, vocab_size: int = 300) -> JsonSchema:
    return JsonSchema(schema, grammar_tokens(byte_level(), vocab_size, [END]), vocab_size)


def holds(value: Any) -> bool:
    tags = value["tags"]
    return (
        set(value) == {"colour", "n", "tags"}
        and value["colour"] in ("red", "blue")
        and isinstance(value["n"], int)
        and 0 <= value["n"] <= 99
        and len(tags) <= 2
        and all(isinstance(tag, str) and len(tag) <= 3 for tag in tags)
    )


@pytest.mark.parametrize("vocab_size", [300, 320])
@pytest.mark.parametrize("given", [SCHEMA, json.dumps(SCHEMA)])
def test_what_comes_parses_and_holds_to_the_schema(vocab_size: int, given: Any) -> None:
    """A network may have more ids than its tokenizer: those are never chosen."""
    schema = schema_of(given, vocab_size)
    network = decoder(max_length=400, vocab_size=vocab_size)
    kinds = [Sampling(), Sampling(1.0), Sampling(1.0, top_k=3), Sampling(2.0, top_p=0.8)]
    asked = [Request((5, 6), 300, kind, seed=1, row=row, schema=schema) for row, kind in enumerate(kinds * 2)]
    results = generate(Engine(network, byte_level(), eos_ids=[END]), [*asked, Request((5, 6), 300)])
    texts = [result.text for result in results[:-1] if result.finish_reason == "stop"]
    assert len(texts) == len(asked)
    for text in texts:
        assert holds(json.loads(text)), text
    assert len(set(texts)) > 4 and not results[-1].text.startswith("{")


def test_cut_off_is_said() -> None:
    schema = schema_of(SCHEMA)
    result = generate(Engine(decoder(), byte_level(), eos_ids=[END]), [Request((5,), 4, schema=schema)])[0]
    assert result.finish_reason == "length" and result.text.startswith("{")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("{", "'json_schema' is not JSON"),
        ("[1]", "must be an object"),
        ({"type": "nonsense"}, "this JSON schema cannot be followed"),
        ({"a": object()}, "'json_schema' is not JSON"),
    ],
)
def test_what_is_no_schema(wrong: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        schema_of(wrong)


def test_a_text_must_be_able_to_end() -> None:
    with pytest.raises(InputError, match="end-of-text token"):
        grammar_tokens(byte_level(), 300, [])


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(InputError, match=r"pip install 'glassformer\[schema\]'"):
        schema_of(SCHEMA)
