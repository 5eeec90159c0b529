"""Chat templates: the text that a chat model was trained to continue, from messages and the model's Jinja template."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from glassformer.errors import InputError


class ChatTemplate:
    """A chat template, in the dialect of Hugging Face: sandboxed Jinja, blocks trimmed, `raise_exception`,
    `strftime_now`, `tojson` and `{% generation %}`.

    The template comes from a model's files and is untrusted: it sees only what `render` is given. Raises `InputError`
    when it cannot be compiled.
    """

    def __init__(self, source: str):
        import jinja2

        self.source = source
        try:
            self._template = _environment().from_string(source)
        except (jinja2.TemplateError, RecursionError) as error:
            line = f", line {error.lineno}" if isinstance(error, jinja2.TemplateSyntaxError) else ""
            raise InputError(
                f"the chat template{line} cannot be read: {error}; use the model's own template."
            ) from None

    def render(
        self, messages: Sequence[Mapping[str, Any]], add_generation_prompt: bool = True, **variables: Any
    ) -> str:
        """The text of a conversation. Encode it with `read_specials=True`: the template spells the special tokens.

        `messages`: `{"role": "user", "content": "..."}` one after the other. `add_generation_prompt` ends with what
        opens the assistant's answer. `variables`: what else the template uses, above all `bos_token` and `eos_token`.
        Raises `InputError` for messages without role or content, and with the template's own words when it refuses.
        """
        for number, message in enumerate(messages):
            if not isinstance(message, Mapping) or not isinstance(message.get("role"), str) or "content" not in message:
                raise InputError(f"message {number} must have a 'role' and a 'content', got {message!r}.")
        try:
            return self._template.render(
                messages=[dict(message) for message in messages],
                add_generation_prompt=add_generation_prompt,
                **{"tools": None, "documents": None, **variables},
            )
        except Exception as error:  # a template can fail in any way that Python can
            raise InputError(
                f"the chat template refused the messages: {error}; check their roles, order and contents."
            ) from None


def read_chat_template(folder: str | Path) -> ChatTemplate | None:
    """The chat template of a pretrained model's folder: `chat_template.jinja`, or the one in `tokenizer_config.json`
    (the one named `default` where there are several). None where there is none."""
    folder = Path(folder)
    try:
        if (folder / "chat_template.jinja").is_file():
            return ChatTemplate((folder / "chat_template.jinja").read_text(encoding="utf-8"))
        config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise InputError(f"{folder}: the chat template cannot be read ({error}); copy the files again.") from None
    found = config.get("chat_template") if isinstance(config, dict) else None
    if isinstance(found, list):
        named = {entry.get("name"): entry.get("template") for entry in found if isinstance(entry, dict)}
        found = named.get("default")
    return ChatTemplate(found) if isinstance(found, str) else None


def _environment() -> Any:
    from jinja2 import TemplateError
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """`{% generation %}` marks the assistant's words for training; here it only lets them through."""

        tags = {"generation"}

        def parse(self, parser: Any) -> Any:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    def refuse(message: str) -> None:
        raise TemplateError(message)

    def now(format: str) -> str:
        return datetime.datetime.now().strftime(format)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.filters["tojson"] = _json
    environment.globals |= {"raise_exception": refuse, "strftime_now": now}
    return environment


def _json(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    """Jinja's own filter escapes HTML, which no chat template means."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
