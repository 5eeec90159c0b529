"""Chat: answers to messages, by the template that the model was tuned with; conversations that remember."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Unpack

from glassformer.errors import InputError
from glassformer.generation.requests import Request
from glassformer.tasks.generate import Generation, Options, Piece, Settings, generate, make_requests, pieces
from glassformer.text.chat import ChatTemplate

if TYPE_CHECKING:
    from glassformer.tasks.model import Model

Message = Mapping[str, Any]


class Conversation:
    """A conversation with a chat model. `say` gives the answer piece by piece; `messages` is what was said so far.

    Keys and values stay between turns, so that a turn reads only what is new. An answer that is left before its end
    (the iterator closed, Ctrl-C) is kept as far as it came, and the conversation goes on. When it outgrows the model's
    positions, `say` raises `InputError`; with `drop_oldest` it forgets the oldest turns, not the system's message,
    until there is room for `max_new_tokens` (for a quarter of the positions at most).

    Not to be used by two threads at a time. Raises `InputError` where the model has no chat template.
    """

    def __init__(self, model: Model, system: str | None = None, *, drop_oldest: bool = False) -> None:
        model.running  # noqa: B018 - see `chat`
        _need_template(model)
        self.messages: list[dict[str, str]] = [] if system is None else [{"role": "system", "content": system}]
        self._model, self._drop_oldest = model, drop_oldest
        self._state: Any = None
        self._read: list[int] = []  # the ids whose keys and values the state is known to hold
        self._answering: Generator[Piece] | None = None

    def say(self, text: str, **settings: Unpack[Settings]) -> Iterator[Piece]:
        """Answer the user's next message; settings as in `Model.generate`. What cannot be is raised at once; the
        message counts as said when the first piece has come. An earlier answer that is still open ends here."""
        if self._answering is not None:
            self._answering.close()
        options = Options(**settings)
        if options.beam > 1:
            raise InputError("a beam knows its text at the end only: converse with beam=1.")
        message = {"role": "user", "content": text}
        kept, ids = self._fitting([*self.messages, message], options)
        request = make_requests(self._model, [ids], options, context=False)[0]
        self._answering = self._answer(kept, request, options)
        return self._answering

    def _answer(self, messages: list[dict[str, str]], request: Request, options: Options) -> Generator[Piece]:
        said = ""
        for piece in self._pieces(request, options):
            said += piece.text
            self.messages = [*messages, {"role": "assistant", "content": said}]
            yield piece

    def _pieces(self, request: Request, options: Options) -> Iterator[Piece]:
        """The answer's pieces, with the state's bookkeeping: after an interruption only what is sure counts as read."""
        engine = self._model.engine(rows=1)
        ids = list(request.ids)
        # at least one id has to be read anew, for the logits after it
        held = _common(self._read, ids[:-1]) if self._state is not None else 0
        if held and not self._state.can_rewind(0, held):  # banded layers have forgotten what would be seen there
            held = 0
        self._read = ids[:held]
        if held:
            self._state.rewind(0, held)
            engine.add(request, self._state, held)
        else:
            engine.add(request)
        for piece in pieces(engine, options):
            ids += piece.ids
            if engine.state is not None:
                self._state = engine.state
                self._read = ids[:-1]
            yield piece

    def _fitting(self, messages: list[dict[str, str]], options: Options) -> tuple[list[dict[str, str]], list[int]]:
        """The messages that the model is to read, and their ids."""
        positions = self._model.config.max_length
        room = min(max(options.max_new_tokens, 1), max(positions // 4, 1)) if self._drop_oldest else 1
        ids = chat_ids(self._model, messages)
        while len(ids) > positions - room:
            shorter = _without_oldest(messages) if self._drop_oldest else messages
            if len(shorter) == len(messages):
                way = "shorten the message" if self._drop_oldest else "begin a new one, or give drop_oldest=True"
                raise InputError(
                    f"the conversation has {len(ids)} tokens, the model reads at most {positions} with its answer: "
                    f"{way}."
                )
            messages, ids = shorter, chat_ids(self._model, shorter)
        return messages, ids


def _without_oldest(messages: list[dict[str, str]]) -> list[dict[str, str]]:
    """Without the first turn: the user's message and its answer. As they are, where only the last turn is left."""
    start = next((i for i, message in enumerate(messages) if message["role"] == "user"), 0)
    following = (i for i, message in enumerate(messages) if i > start and message["role"] == "user")
    end = next(following, start)
    return messages[:start] + messages[end:]


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """How many ids are the same from the beginning on."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((place for place, (a, b) in pairs if a != b), min(len(one), len(other)))


def chat(model: Model, messages: Sequence[Message], options: Options) -> Generation:
    """The answer to the messages."""
    model.running  # noqa: B018 - what cannot chat says so before its template is missed
    return generate(model, [chat_ids(model, messages)], options, context=False)[0]


def chat_ids(model: Model, messages: Sequence[Message]) -> list[int]:
    """The ids of a conversation, up to where the assistant's answer begins."""
    return model.tokenizer.encode(chat_text(model, messages), read_specials=True)


def chat_text(model: Model, messages: Sequence[Message], answering: bool = True) -> str:
    """A conversation as the model's template writes it; `answering`: with what opens the assistant's answer."""
    _need_template(model)
    if not messages:
        raise InputError("a conversation must have at least one message.")
    known: dict[str, Any] = {f"{role}_token": token for role, token in model.tokenizer.specials.items()}
    template = _template(model.pipeline.chat_template)
    return template.render(messages, answering, **{"bos_token": "", "eos_token": "", **known})


def _need_template(model: Model) -> None:
    if not model.pipeline.chat_template:
        raise InputError("this model has no chat template: it was not tuned to chat; use generate.")


@lru_cache(maxsize=16)
def _template(source: str) -> ChatTemplate:
    return ChatTemplate(source)
