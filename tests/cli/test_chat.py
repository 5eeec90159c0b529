"""`glassformer chat`: turns from a file, and from a terminal with Ctrl-C and Ctrl-D."""

from __future__ import annotations

import functools
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from processes import Finished, run_inside

import glassformer as gf


def run(folder: Path, *arguments: object, stdin: bytes) -> Finished:
    return run_inside("chat", "--model", folder, "--max-new-tokens", 8, *arguments, stdin=stdin)


def answers(folder: Path, *turns: str, system: str | None = None) -> list[str]:
    conversation = gf.load(folder).conversation(system)
    return ["".join(piece.text for piece in conversation.say(turn, max_new_tokens=8)) for turn in turns]


def test_a_line_is_a_turn_and_turns_are_remembered(tiny_decoder: Path) -> None:
    first, second = answers(tiny_decoder, "a dog", "runs")
    done = run(tiny_decoder, stdin=b"a dog\n\nruns\n")
    assert done == Finished(0, f"{first}\n\n{second}\n", "")
    assert answers(tiny_decoder, "runs") != [second]


def test_commands(tiny_decoder: Path) -> None:
    first, fresh = answers(tiny_decoder, "a dog")[0], answers(tiny_decoder, "runs")[0]
    told = answers(tiny_decoder, "runs", system="be brief")[0]
    done = run(
        tiny_decoder, stdin=b"a dog\n/reset\nruns\n/system be brief\nruns\n/system\n/help\n/nonsense\n/quit\nruns\n"
    )
    assert (done.code, done.out) == (0, f"{first}\n\n{fresh}\n\n{told}\n")
    assert "be brief" in done.err and "/reset" in done.err and "no command /nonsense" in done.err
    assert run(tiny_decoder, "--system", "be brief", stdin=b"runs\n").out == told + "\n"


def test_a_line_with_a_space_before_a_slash_is_a_turn(tiny_decoder: Path) -> None:
    assert run(tiny_decoder, stdin=b" /quit\n").out == answers(tiny_decoder, "/quit")[0] + "\n"


def test_mistakes(tiny_decoder: Path, tiny_fill: Path) -> None:
    done = run(tiny_fill, stdin=b"hello\n")
    assert done.code == 2 and done.out == "" and done.err.count("\n") == 1
    long = run(tiny_decoder, stdin=b"a dog " * 3000 + b"\nruns\n")
    assert long.code == 2 and "4096" in long.err


class Terminal:
    """A conversation in a terminal: what it showed, and waiting for more."""

    def __init__(self, process: subprocess.Popen[bytes], screen: int) -> None:
        self.process, self._screen, self._unread, self.shown = process, screen, "", ""

    def wait_for(self, text: str, seconds: float = 60) -> None:
        """Read the screen up to the next `text`."""
        end = time.monotonic() + seconds
        while text not in self._unread:
            assert time.monotonic() < end, f"{text!r} was not shown, but {self._unread!r}"
            if select.select([self._screen], [], [], 0.1)[0]:
                try:
                    self._unread += os.read(self._screen, 1024).decode(errors="replace")
                except OSError:  # the process has ended
                    raise AssertionError(f"{text!r} was not shown, but {self._unread!r}") from None
        before, _, self._unread = self._unread.partition(text)
        self.shown += before + text

    def type(self, text: str) -> None:
        os.write(self._screen, text.encode())

    def interrupt(self) -> None:
        self.process.send_signal(signal.SIGINT)

    def interrupt_at_the_prompt(self) -> int:
        """The exit code. A signal between showing the prompt and waiting for a key is seen at the next one only."""
        for _ in range(10):
            self.interrupt()
            with suppress(subprocess.TimeoutExpired):
                return self.process.wait(5)
        raise AssertionError("Ctrl-C at the prompt does not end the conversation")


@contextmanager
def terminal(folder: Path, *arguments: str) -> Iterator[Terminal]:
    screen, end = pty.openpty()
    command = [sys.executable, "-m", "glassformer", "chat", "--model", str(folder), *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TERM": "dumb"}
    # tests that run in a shell's background ignore Ctrl-C, and so would the conversation
    heed = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    streams = {"stdin": end, "stdout": end, "stderr": end}
    with subprocess.Popen(command, **streams, env=environment, preexec_fn=heed) as process:
        os.close(end)
        try:
            yield Terminal(process, screen)
        finally:
            process.kill()
            os.close(screen)


def test_ctrl_c_stops_the_answer_and_at_the_prompt_the_conversation(tiny_decoder: Path) -> None:
    with terminal(tiny_decoder, "--max-new-tokens", "4000") as chat:
        chat.wait_for("> ")
        chat.type("a dog\n")
        chat.wait_for("un")
        chat.interrupt()
        chat.wait_for("(stopped)")
        chat.wait_for("> ")
        chat.type("/system\n")
        chat.wait_for("no instructions")
        chat.wait_for("> ")
        assert not any(c < " " and c not in "\r\n\t" for c in chat.shown)  # the model writes control characters
        time.sleep(0.5)  # until it waits for a key
        assert chat.interrupt_at_the_prompt() == 0


def test_ctrl_d_ends_and_a_mistake_does_not(tiny_decoder: Path) -> None:
    with terminal(tiny_decoder, "--top-p", "2") as chat:
        chat.wait_for("> ")
        chat.type("a dog\n")
        chat.wait_for("error: ")
        chat.wait_for("> ")
        chat.type("\x04")
        assert chat.process.wait(30) == 0
