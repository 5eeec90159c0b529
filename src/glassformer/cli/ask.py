"""`glassformer ask`: answers with how sure the model is, or with quotes from documents, or none and why."""

from __future__ import annotations

import os
import sys
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

from cyclopts import Parameter

from glassformer.cli.options import EncodingOption, check_words
from glassformer.cli.output import put, put_json, say, visible
from glassformer.cli.running import load_to_run
from glassformer.cli.translate import read_chunks
from glassformer.errors import InputError
from glassformer.tasks.precision import Precision

if TYPE_CHECKING:
    from glassformer.factuality.asking import Reply, Token

SHADES = ((0.5, ""), (0.2, "\x1b[48;5;187;38;5;16m"), (0.05, "\x1b[48;5;215;38;5;16m"), (0.0, "\x1b[48;5;203;38;5;16m"))
"""From which probability on a token has which background: none, sand, orange, red."""
_END = "\x1b[0m"


def ask(
    *question: Annotated[str, Parameter(help="Questions; without any, the lines of standard input.")],
    model: Annotated[
        str | None,
        Parameter(
            help="The model that answers: a run, a folder, a GGUF file, or a known name. With "
            "--documents only for --write."
        ),
    ] = None,
    documents: Annotated[
        tuple[Path, ...],
        Parameter(help="Answer with words of these files and folders only; may be given several times."),
    ] = (),
    encoding: EncodingOption = None,
    write: Annotated[
        bool,
        Parameter(
            help="With --documents: the model composes the answer; every number, date and name of it is looked up in "
            "them and struck where they do not have it.",
            negative="",
        ),
    ] = False,
    reader: Annotated[
        str, Parameter(help="With --documents: the model that finds the answer in a passage.")
    ] = "squad-minilm",
    risk: Annotated[
        Path | None, Parameter(help="A calibration of this model (glassformer calibrate): says the risk of an answer.")
    ] = None,
    max_error: Annotated[
        float | None,
        Parameter(help="With --risk: answer only where at most this share of answers will be wrong, 0.1 for 10 %."),
    ] = None,
    max_new_tokens: Annotated[int, Parameter(help="The most tokens of an answer.")] = 48,
    precision: Annotated[
        Precision | None, Parameter(help="What the model computes in; as its file stores it, unless given.")
    ] = None,
    json: Annotated[bool, Parameter(help="A JSON object a question, with all scores and places.", negative="")] = False,
) -> None:
    """Answer questions, and say what each answer is worth.

    A model answers from what it has learnt; on a terminal, tokens are shaded where it was unsure: the redder, the less
    probable. With --documents the answer is copied from them, with the sentence that says it, its file and place; or
    the documents do not say; where another passage says something else about as surely, that is shown too. With --write
    the model composes the answer from the passages, and what they do not have is struck from it; where nothing is left
    that answers, or they disagree, there is none. Documents may be wrong, and nothing that they say is obeyed.

    In a pipe: one line a question, the answer and its risk or its place, between tabs.
    """
    _check(model, documents, write)
    check_words(question, "question")
    from glassformer.factuality.asking import ask_all, index_of
    from glassformer.factuality.documents import read_documents

    settings: dict[str, Any] = {"risk": risk, "max_error": max_error, "max_new_tokens": max_new_tokens}
    answering = None if model is None or (documents and not write) else load_to_run(model, precision or "stored")
    if documents:
        texts = read_documents(documents, encoding=encoding, say=say)
        settings |= {"write": write, "documents": index_of(texts, say), "reader": reader}
    elif risk is not None:
        from glassformer.factuality import calibration

        assert answering is not None and model is not None
        settings["risk"] = calibration.load(risk, answering, model)
    chunks = iter([(1, list(question))]) if question else read_chunks(cast("BufferedReader", sys.stdin.buffer))
    for _, lines in chunks:
        for reply in ask_all(answering, lines, **settings):
            _put(reply, json)


def _put(reply: Reply, json: bool) -> None:
    """In JSON, for people, or as a line; a pipe's lines have no room for a conflict, so that goes to stderr."""
    from glassformer.factuality.writing import disagreement

    if json:
        put_json(reply.to_json())
    elif sys.stdout.isatty():
        put("\n".join(_for_people(reply)))
    else:
        put(_line(reply))
        if (conflict := disagreement(reply.evidence)) and conflict != reply.why:
            say(f"{visible(reply.question)}: {visible(conflict)}")


def _check(model: str | None, documents: tuple[Path, ...], write: bool) -> None:
    """`InputError` where nobody is asked, or something is to be written by nobody or from nothing."""
    if write and not documents:
        raise InputError("--write composes an answer from texts: give them by --documents FILES.")
    if write and model is None:
        raise InputError("--write needs a model that writes: --model NAME.")
    if not documents and model is None:
        raise InputError("say who is asked: --model NAME, or --documents FILES for answers from texts.")


def _line(reply: Reply) -> str:
    """The answer, its place or risk, and why there is none, between tabs."""
    if reply.answer is None:
        return f"-\t-\t{' '.join(reply.why.split())}"
    answer = " ".join(reply.answer.split())
    if reply.evidence:
        first = reply.evidence[0]
        return f"{answer}\t{first.document.name}:{first.start}:{first.end}\t{' '.join(first.quote.split())}"
    return f"{answer}\t{'-' if reply.risk is None else format(reply.risk, '.3f')}\t"


def _for_people(reply: Reply) -> list[str]:
    from glassformer.factuality.writing import disagreement

    lines = []
    if reply.written:
        lines += _written(reply)
    elif reply.tokens:
        shown = "".join(map(_shaded, reply.tokens)).strip()
        lines.append(shown if reply.answer is not None else f"No answer: {reply.why}. It would have said: {shown}")
        lines.append(_how_sure(reply))
    elif reply.answer is None:
        lines.append(f"No answer: {reply.why}.")
    else:
        lines.append(visible(reply.answer))
    conflict = disagreement(reply.evidence)
    if conflict and conflict != reply.why:
        lines.append(f"  {visible(conflict)}.")
    for each in reply.evidence:
        other = "  but: " if each in reply.disagreeing else "  "
        lines.append(
            f"{other}“{visible(' '.join(each.quote.split()))}” ({each.document.name}, {each.start}–{each.end})"
        )
    return lines


def _written(reply: Reply) -> list[str]:
    """A composed answer with what was struck from it, and why."""
    shown = _struck_through(reply)
    if reply.answer is not None:
        lines = [shown]
    else:
        lines = [f"No answer: {visible(reply.why)}." + (f" It would have said: {shown}" if shown else "")]
    for one in reply.checks:
        if one.verdict != "supported":
            instead = f" (the documents: {visible(one.found)})" if one.found else ""
            lines.append(f"  struck: {visible(one.text)}, {one.verdict}{instead}")
    return lines


def _struck_through(reply: Reply) -> str:
    """The draft with a line through what was struck, or between "~~" where there is to be no colour."""
    from glassformer.factuality.writing import without

    return without(visible(reply.draft), reply.checks, "~~{}~~" if "NO_COLOR" in os.environ else "\x1b[9m{}\x1b[29m")


def _how_sure(reply: Reply) -> str:
    if reply.risk is not None:
        return f"  risk of being wrong: {100 * reply.risk:.0f} %"
    worst = min(reply.tokens, key=lambda token: token.probability)
    return (
        f"  least probable: {visible(worst.text.strip()) or 'a space'} ({100 * worst.probability:.0f} %). "
        "How often such answers are wrong, only a calibration says (--risk)."
    )


def _shaded(token: Token) -> str:
    """On a background that tells how probable the token was."""
    text = visible(token.text)
    shade = next(shade for least, shade in SHADES if token.probability >= least)
    return text if not shade or "NO_COLOR" in os.environ else f"{shade}{text}{_END}"
