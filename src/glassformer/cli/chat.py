"""`glassformer chat`: a conversation with a model, turn by turn."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from io import BufferedReader, TextIOWrapper
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, cast

from cyclopts import Parameter

from glassformer.cli.options import ModelOption, RunPrecisionOption, Sampling, SamplingOptions
from glassformer.cli.output import put, put_part, say
from glassformer.cli.running import load_to_run
from glassformer.cli.translate import read_chunks
from glassformer.errors import InputError

if TYPE_CHECKING:
    from glassformer.tasks.chat import Conversation
    from glassformer.tasks.generate import Piece
    from glassformer.tasks.model import Model

PROMPT = "> "

_HELP = """/reset         forget what was said
/system TEXT   begin again, with this as the model's instructions; without TEXT, show them
/quit          end; so do Ctrl-D, and Ctrl-C while you are asked
/help          this list
Ctrl-C during an answer stops the answer. A line that begins with a space is for the model, whatever follows."""


def chat(
    *,
    model: ModelOption,
    system: Annotated[str | None, Parameter(help="Instructions that the model reads before all else.")] = None,
    max_new_tokens: Annotated[int, Parameter(help="The most tokens of an answer.")] = 512,
    sampling: SamplingOptions = Sampling(),  # noqa: B008 - frozen
    keep_all: Annotated[
        bool,
        Parameter(help="End with an error where the conversation is too long, instead of forgetting its oldest turns."),
    ] = False,
    precision: RunPrecisionOption = "stored",
) -> None:
    """Talk with a model that was tuned to chat; a turn is a line of standard input.

    The answer is written as it comes, on standard output. Ctrl-C stops an answer; at the prompt it ends the
    conversation, as Ctrl-D does. /help lists what else can be typed. The most probable words are taken unless
    --temperature says otherwise.
    """
    loaded = load_to_run(model, precision, lean=True)
    talk = Talk(loaded, system, not keep_all, {"max_new_tokens": max_new_tokens, **sampling.settings()})
    if sys.stdin.isatty():
        say("Type a line and Enter. /help lists commands; Ctrl-D ends.")
    try:
        for line in _lines():
            if line.startswith("/"):
                if not talk.obey(line):
                    return
            elif line.strip():
                _answer(talk, line.strip())
    except KeyboardInterrupt:  # at the prompt
        say()


class Talk:
    """A conversation that can be begun again."""

    def __init__(self, model: Model, system: str | None, drop_oldest: bool, settings: dict[str, Any]) -> None:
        self.model, self.system, self.drop_oldest, self.settings = model, system, drop_oldest, settings
        self.said = 0
        self.conversation = self.begin()

    def begin(self) -> Conversation:
        """A conversation in which nothing was said."""
        self.conversation = self.model.conversation(self.system, drop_oldest=self.drop_oldest)
        return self.conversation

    def obey(self, line: str) -> bool:
        """Do what a command says; False where it ends the conversation."""
        command, _, rest = line.partition(" ")
        if command == "/quit":
            return False
        if command == "/reset":
            self.begin()
            say("What was said is forgotten.")
        elif command == "/system" and not rest.strip():
            say(self.system or "There are no instructions.")
        elif command == "/system":
            self.system = rest.strip()
            self.begin()
            say("The conversation begins again, with these instructions.")
        elif command == "/help":
            say(_HELP)
        else:
            say(f"There is no command {command}: /help lists them.")
        return True


def _answer(talk: Talk, line: str) -> None:
    """Write the answer as it comes; Ctrl-C stops it. What is wrong with a turn typed by hand ends only that turn."""
    if talk.said and not sys.stdin.isatty():
        put("")  # apart from the answer before
    try:
        with _stoppable() as stopped:
            pieces = cast("Generator[Piece]", talk.conversation.say(line, **talk.settings))
            for piece in pieces:
                put_part(piece.text)
                if stopped.is_set():
                    break
            pieces.close()
    except KeyboardInterrupt:  # the second one, while the first waits for the next token
        stopped.set()
    except InputError as error:
        if not sys.stdin.isatty():
            raise
        say(f"error: {' '.join(str(error).split())}")
        return
    talk.said += 1
    put("")
    if stopped.is_set():
        say("(stopped)")


@contextmanager
def _stoppable() -> Iterator[threading.Event]:
    """Within, the first Ctrl-C only sets the event, so that a token's work ends whole; the second interrupts."""
    stopped = threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:
        if stopped.is_set():
            raise KeyboardInterrupt
        stopped.set()

    before = signal.getsignal(signal.SIGINT)
    if before is signal.SIG_IGN:  # whoever started us wants it so
        yield stopped
        return
    signal.signal(signal.SIGINT, stop)
    try:
        yield stopped
    finally:
        signal.signal(signal.SIGINT, before)


def _lines() -> Iterator[str]:
    """The turns: typed after a prompt, or the lines of standard input as they come."""
    if not sys.stdin.isatty():
        for _, lines in read_chunks(cast("BufferedReader", sys.stdin.buffer)):
            yield from lines
        return
    with suppress(ImportError):
        import readline  # noqa: F401 - arrow keys and earlier lines, where Python has them
    cast("TextIOWrapper", sys.stdin).reconfigure(errors="replace")
    with suppress(EOFError):
        while True:
            yield _ask()
    say()


def _ask() -> str:
    if sys.stdout.isatty():
        return input(PROMPT)
    print(PROMPT, end="", file=sys.stderr, flush=True)  # stdout has the answers only
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line.rstrip("\n")
