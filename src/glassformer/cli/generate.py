"""`glassformer generate`: texts that go on from prompts, streamed as they come."""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

from cyclopts import Parameter

from glassformer.cli.options import ModelOption, RunPrecisionOption, Sampling, SamplingOptions
from glassformer.cli.output import put, put_json, put_part, say, visible
from glassformer.cli.running import load_to_run
from glassformer.cli.translate import read_chunks
from glassformer.errors import InputError

if TYPE_CHECKING:
    from glassformer.generation.contrast import Contrast
    from glassformer.tasks.generate import Generation
    from glassformer.tasks.model import Model

PORTION = 256
"""So many prompts go to the model in one call; with a seed, what is drawn depends on it."""

NEW_LINE = "\n"

Portions = Iterator[tuple[int, list[str]]]


@dataclass(frozen=True)
class Answer:
    """What came of a prompt. Prompts that run together share `tokens` and `seconds`; `first`, the seconds until the
    first token, is known of one that runs alone."""

    prompt: str
    result: Generation
    tokens: int
    seconds: float
    first: float | None = None

    @property
    def rate(self) -> float | None:
        """Tokens a second: from the first one on where its time is known. None for too few of them."""
        tokens, seconds = (self.tokens, 0.0) if self.first is None else (self.tokens - 1, self.first)
        return tokens / (self.seconds - seconds) if tokens > 0 else None


@dataclass(frozen=True)
class Way:
    """How answers are written: as JSON, after their prompts, under headings; the first has the number `start`."""

    json: bool
    echo: bool
    headed: bool
    start: int = 1


def generate(
    *prompt: Annotated[
        str,
        Parameter(
            help="Prompts; without any, each line of standard input is one. '--' goes before one with '-' first."
        ),
    ],
    model: ModelOption,
    max_new_tokens: Annotated[int, Parameter(help="The most tokens of a continuation.")] = 128,
    sampling: SamplingOptions = Sampling(),  # noqa: B008 - frozen
    ignore_eos: Annotated[bool, Parameter(help="Go on where the model would end the text.", negative="")] = False,
    beam: Annotated[int, Parameter(help="Search for the most probable text with so many hypotheses.")] = 1,
    n_best: Annotated[int, Parameter(help="With --beam: so many texts a prompt, the best first.")] = 1,
    json_schema: Annotated[
        str | None, Parameter(help="The text is JSON that follows this schema: a file, or the schema itself.")
    ] = None,
    without: Annotated[
        tuple[str, ...],
        Parameter(
            help="The prompt without its document, once for each prompt: what the document adds then counts more.",
            show_default=False,
        ),
    ] = (),
    weight: Annotated[float, Parameter(help="With --without: how much more (0: as ever).")] = 0.5,
    dola: Annotated[
        str | None,
        Parameter(help="Choose by the last layer against earlier ones: low, high, or numbers such as 8,12."),
    ] = None,
    logprobs: Annotated[
        int, Parameter(help="With --json: also the K most probable tokens at every place, with log-probabilities.")
    ] = 0,
    truncate: Annotated[
        bool, Parameter(help="Read only the end of a prompt that is too long, instead of refusing it.", negative="")
    ] = False,
    whole_input: Annotated[
        bool, Parameter(help="All of standard input is one prompt (less one newline at its end).", negative="")
    ] = False,
    echo: Annotated[
        bool, Parameter(help="Write the prompt before the text that goes on from it.", negative="")
    ] = False,
    precision: RunPrecisionOption = "stored",
    batch_size: Annotated[int | None, Parameter(help="The most prompts that run together.")] = None,
    json: Annotated[
        bool,
        Parameter(help="A JSON object a prompt: text, ids, logprobs, finish_reason, times, alternatives.", negative=""),
    ] = False,
    verbose: Annotated[
        bool, Parameter(help="Say on standard error how fast it was, as on a terminal.", negative="")
    ] = False,
) -> None:
    """Go on from prompts, given here or line by line on standard input.

    One text is written as it comes. Of several, each stands under a line '==> 1: PROMPT <=='; with --json, N lines in
    are N lines out, in order. The most probable token is taken unless --temperature says otherwise.
    """
    if prompt and whole_input:
        raise InputError("--whole-input makes standard input the prompt; give no other beside it.")
    if logprobs and not json:
        raise InputError("--logprobs is written with --json only; give both.")
    settings = {
        "max_new_tokens": max_new_tokens,
        **sampling.settings(),
        "ignore_eos": ignore_eos,
        "beam": beam,
        "n_best": n_best,
        "json_schema": None if json_schema is None else read_schema(json_schema),
        "logprobs": logprobs,
        "truncate": truncate,
        "batch_size": batch_size,
        "contrast": _contrast(len(prompt), without, weight, dola),
    }
    loaded = load_to_run(model, precision, lean=True)
    portions = _portions(list(prompt), whole_input, json, sampling.seed is not None)
    first = next(portions, None)
    if first is not None:
        way = Way(json, echo, headed=not json and (n_best > 1 or len(first[1]) > 1))
        _run(loaded, itertools.chain([first], portions), settings, way, verbose or sys.stderr.isatty())


def _run(model: Model, portions: Portions, settings: dict[str, Any], way: Way, told: bool) -> None:
    seed = settings["seed"]
    for start, prompts in portions:
        own = settings if seed is None else {**settings, "seed": seed + start - 1}  # other draws in each portion
        try:
            answers = _answers(model, prompts, own, replace(way, start=start))
        except InputError as error:
            raise (InputError(f"prompts from line {start} on: {error}") if start > 1 else error) from None
        if way.json:
            for number, answer in enumerate(answers, start):
                put_json(_record(number, answer))
        if told:
            say(_speed(answers[-1]))


def _contrast(prompts: int, without: tuple[str, ...], weight: float, dola: str | None) -> Contrast | None:
    """What --without or --dola ask for; see `generation.contrast`."""
    if not without and dola is None:
        return None
    from glassformer.generation.contrast import ContextAware, Dola

    if dola is None:
        if len(without) != prompts:
            raise InputError(f"--without goes with prompts given here, one for each; got {len(without)} for {prompts}.")
        return ContextAware(without, weight)
    if without:
        raise InputError("--without and --dola are two ways of choosing tokens; give one of them.")
    numbers = [part.strip() for part in dola.split(",")]
    return Dola(tuple(map(int, numbers)) if all(map(str.isdecimal, numbers)) else dola)  # type: ignore[arg-type]


def read_schema(given: str) -> str:
    """The schema itself where it looks like JSON, else what the file of that name holds."""
    if given.lstrip().startswith("{"):
        return given
    path = Path(given)
    if not path.is_file():
        raise InputError(f"--json-schema must be a file, or a schema that begins with '{{', got {given!r}.")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: a schema must be UTF-8 text; byte {error.start} is not.") from None


def _portions(given: list[str], whole: bool, json: bool, seeded: bool) -> Portions:
    """The prompts, with the number of the first. Only JSON takes lines as they come: text must know how many there
    are, and a seed needs portions that do not depend on the writer's pace."""
    if given:
        return _cut(given)
    stream = cast("BufferedReader", sys.stdin.buffer)
    if sys.stdin.isatty():
        say("Type prompts, one a line; Ctrl-D ends. (To talk with a model: glassformer chat)")
    if whole:
        return iter([(1, [_whole(stream)])])
    if json and not seeded:
        return (part for first, lines in read_chunks(stream) for part in _cut(lines, first))
    return _cut([line for _, lines in read_chunks(stream) for line in lines])


def _cut(lines: list[str], first: int = 1) -> Portions:
    return ((first + start, lines[start : start + PORTION]) for start in range(0, len(lines), PORTION))


def _whole(stream: BufferedReader) -> str:
    """All of a stream as one text, without the newline that ends its last line."""
    return "\n".join(line for _, lines in read_chunks(stream) for line in lines)


def _answers(model: Model, prompts: list[str], settings: dict[str, Any], way: Way) -> list[Answer]:
    """The prompts' answers; one that stands alone is written while it comes, unless as JSON."""
    if len(prompts) == 1 and settings["beam"] == 1 and not way.headed:
        return [_streamed(model, prompts[0], settings, way)]
    began = time.perf_counter()
    results = model.generate(prompts, **settings)
    seconds = time.perf_counter() - began
    tokens = sum(len(result.ids) for result in results)
    answers = [Answer(prompt, result, tokens, seconds) for prompt, result in zip(prompts, results, strict=True)]
    for number, answer in enumerate(answers, way.start):
        if not way.json:
            _write_texts(number, answer, way)
    return answers


def _streamed(model: Model, prompt: str, settings: dict[str, Any], way: Way) -> Answer:
    from glassformer.tasks.generate import Generation, Options, prompt_ids

    began, first, pieces = time.perf_counter(), None, []
    ids = prompt_ids(model, [prompt], Options(**settings))[0]
    if way.echo and not way.json:
        put_part(prompt)
    for piece in model.stream(ids, **settings):
        first = first if first is not None else time.perf_counter() - began
        pieces.append(piece)
        if not way.json:
            put_part(piece.text)
    seconds = time.perf_counter() - began
    logprobs = tuple(value for piece in pieces for value in piece.logprobs)
    result = Generation(
        "".join(piece.text for piece in pieces),
        tuple(i for piece in pieces for i in piece.ids),
        logprobs,
        pieces[-1].finish_reason or "length",
        sum(logprobs),
        prompt_ids=tuple(ids),
        top_logprobs=tuple(top for piece in pieces for top in piece.top_logprobs or ()) or None,
    )
    if not way.json and not result.text.endswith("\n"):
        put("")
    return Answer(prompt, result, len(result.ids), seconds, first)


def _write_texts(number: int, answer: Answer, way: Way) -> None:
    best = [answer.result, *answer.result.alternatives]
    for rank, result in enumerate(best, 1):
        if way.headed:
            which = f"{number}" if len(best) == 1 else f"{number}, text {rank} of {len(best)}, score {result.score:.4f}"
            put(f"{'' if number == rank == 1 else NEW_LINE}==> {which}: {_short(answer.prompt)} <==")
        text = f"{answer.prompt}{result.text}" if way.echo else result.text
        put_part(text if text.endswith("\n") else f"{text}\n")


def _short(prompt: str, width: int = 60) -> str:
    """A prompt as a heading: one line of at most `width` characters."""
    line = " ".join(visible(prompt).split())
    return line if len(line) <= width else f"{line[: width - 1]}…"


def _record(number: int, answer: Answer) -> dict[str, Any]:
    rate = answer.rate
    return {
        "line": number,
        "prompt": answer.prompt,
        **_texts(answer.result),
        "prompt_tokens": len(answer.result.prompt_ids or ()),
        "seconds_to_first_token": None if answer.first is None else round(answer.first, 4),
        "tokens_per_second": None if rate is None else round(rate, 2),
        "alternatives": [_texts(other) for other in answer.result.alternatives],
    }


def _texts(result: Generation) -> dict[str, Any]:
    record = {
        "text": result.text,
        "ids": result.ids,
        "logprobs": result.logprobs,
        "finish_reason": result.finish_reason,
        "score": result.score,
    }
    if result.top_logprobs is not None:
        record["top_logprobs"] = [[{"id": i, "logprob": value} for i, value in top] for top in result.top_logprobs]
    return record


def _speed(answer: Answer) -> str:
    speed = f", {answer.rate:.1f} tokens a second" if answer.rate is not None else ""
    first = f", the first after {answer.first:.2f} s" if answer.first is not None else ""
    return f"{answer.tokens} tokens in {answer.seconds:.2f} s{first}{speed}"
