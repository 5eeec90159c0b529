"""`Model`: a network with its tokenizer and its text pipeline, and the verbs that turn text into text."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast, overload

import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence

from glassformer.checkpoints import native
from glassformer.errors import InputError, did_you_mean
from glassformer.generation.decoding import Decodable, beam_search
from glassformer.generation.search import Hypothesis
from glassformer.layers.int8 import int8
from glassformer.tasks.precision import PRECISIONS, Precision
from glassformer.tasks.splitting import parts
from glassformer.text.pipeline import TextPipeline
from glassformer.text.tokenizer import Tokenizer

BATCH_TOKENS = 2048


@dataclass(frozen=True)
class Generation:
    """One result. `ids` are the tokens as generated and `logprobs` the log-probability of each.

    `finish_reason` is "stop" where the model ended the text itself (the last id is then `</s>`), and "length" where it
    was cut off at the most tokens allowed. `score` ranks results of one input: the sum of `logprobs` over the length
    penalty. `alternatives` are the next best results, the best first, if more than one was asked for.
    """

    text: str
    ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish_reason: Literal["stop", "length"]
    score: float
    alternatives: tuple[Generation, ...] = ()


_EMPTY = Generation("", (), (), "stop", 0.0)


@dataclass(frozen=True, eq=False)
class Model:
    """A network that reads and writes text; `load` or `train` gives one. The parts can be used by themselves."""

    network: nn.Module
    tokenizer: Tokenizer
    pipeline: TextPipeline
    task: str = "translation"

    @classmethod
    def load(cls, name: str | Path, *, precision: Precision = "fp32") -> Model:
        """The model in a checkpoint or run folder, or one that comes with the package, by name.

        `precision` "int8" runs dense layers on 8-bit weights, for speed on a CPU: such a model is not to be trained or
        saved, and writes a little differently. "bf16" halves memory, and is fast where the processor multiplies it.

        Raises `InputError` for a name that is neither, and for a folder whose files are missing, damaged or newer.
        """
        held = native.load(native.find(name))
        return cls(_at_precision(held.network, precision), held.tokenizer, held.pipeline, held.task)

    def save(
        self, folder: str | Path, *, extra: dict[str, Any] | None = None, dtype: torch.dtype | None = None
    ) -> Path:
        """Write the model to `folder`, for `load` to read; see `checkpoints.native.save`."""
        return native.save(folder, self.network, self.tokenizer, self.pipeline, self.task, extra=extra, dtype=dtype)

    @property
    def config(self) -> Any:
        """The network's shape and choices."""
        return self.network.config

    @property
    def device(self) -> torch.device:
        """Where the network's weights are, and its work is done."""
        return next(self.network.parameters()).device

    @overload  # a string is a sequence of strings too; it comes first
    def translate(  # type: ignore[overload-overlap]
        self,
        text: str,
        *,
        beam: int = ...,
        n_best: int = ...,
        length_penalty: float = ...,
        max_length: int | None = ...,
        tokenized: bool = ...,
        long: Literal["error", "split"] = ...,
        batch_tokens: int = ...,
        first_line: int = ...,
    ) -> Generation: ...
    @overload
    def translate(
        self,
        text: Sequence[str],
        *,
        beam: int = ...,
        n_best: int = ...,
        length_penalty: float = ...,
        max_length: int | None = ...,
        tokenized: bool = ...,
        long: Literal["error", "split"] = ...,
        batch_tokens: int = ...,
        first_line: int = ...,
    ) -> list[Generation]: ...
    def translate(
        self,
        text: str | Sequence[str],
        *,
        beam: int = 5,
        n_best: int = 1,
        length_penalty: float = 1.0,
        max_length: int | None = None,
        tokenized: bool = False,
        long: Literal["error", "split"] = "error",
        batch_tokens: int = BATCH_TOKENS,
        first_line: int = 1,
    ) -> Generation | list[Generation]:
        """Translate one text, or a list of them: a string gives one `Generation`, a list a list in the same order.

        `tokenized` reads and writes the tokens that the text pipeline would make, separated by spaces, and leaves the
        pipeline out. An empty line gives an empty text. Lines of like length are translated together, in batches of at
        most `batch_tokens` source tokens; what a line gives does not depend on the others. See `beam_search` for
        `beam`, `n_best`, `length_penalty` and `max_length` (in tokens).

        A line with more tokens than the model has positions is an `InputError` that names it, counting from
        `first_line`; with `long="split"` it is translated in parts, with a warning.
        """
        lines = _lines(text)
        if long not in ("error", "split"):
            raise InputError(f"'long' must be 'error' or 'split', got {long!r}.")
        prepared = [" ".join(line.split()) if tokenized else self.pipeline.prepare_source(line) for line in lines]
        pieces = self._pieces(prepared, long == "split", first_line)
        search = {"beam": beam, "n_best": n_best, "length_penalty": length_penalty, "max_length": max_length}
        found = self._search([ids for line in pieces for ids in line], batch_tokens, search)
        results = [self._result([next(found) for _ in line], tokenized) for line in pieces]
        return results[0] if isinstance(text, str) else results

    def evaluate(self, pairs: Any, **settings: Any) -> dict[str, Any]:
        """Translate the sources of `pairs` and score the result; see `tasks.evaluation.evaluate`."""
        from glassformer.tasks.evaluation import evaluate

        return evaluate(self, pairs, **settings)

    def _pieces(self, lines: list[str], split: bool, first_line: int) -> list[list[list[int]]]:
        """Each line as ids: none if it is empty, one list if it fits, more if it had to be split."""
        room = self.config.max_length - 1  # the encoder reads </s> too

        def fits(text: str) -> bool:
            return len(self.tokenizer.encode(text)) <= room

        pieces = [[ids] if ids else [] for ids in self.tokenizer.encode_all(lines)]
        for number, line in enumerate(pieces):
            if not line or len(line[0]) <= room:
                continue
            has = f"line {number + first_line} has {len(line[0])} tokens, the model has positions for {room}"
            if not split:
                raise InputError(f'{has}: shorten it, or have it translated in parts with long="split" (--long split).')
            pieces[number] = self.tokenizer.encode_all(parts(lines[number], fits))
            warnings.warn(f"{has}: translated in {len(pieces[number])} parts.", stacklevel=3)
        return pieces

    def _search(
        self, sources: list[list[int]], batch_tokens: int, settings: dict[str, Any]
    ) -> Iterator[list[Hypothesis]]:
        """The hypotheses found for each source, in order; searched in batches of like length, the longest first."""
        network = cast(Decodable, self.network)
        found: dict[int, list[Hypothesis]] = {}
        for rows in _batches([len(source) + 1 for source in sources], batch_tokens):
            ids = [torch.tensor([*sources[row], self.config.eos_id]) for row in rows]
            source = pad_sequence(ids, batch_first=True, padding_value=self.config.pad_id).to(self.device)
            found.update(zip(rows, beam_search(network, source, **settings), strict=True))
        return (found[row] for row in range(len(sources)))

    def _result(self, found: list[list[Hypothesis]], tokenized: bool) -> Generation:
        """One line's generation, of the hypotheses of its parts; the k-th best is made of the k-th best of each."""
        if not found:
            return _EMPTY
        best, *others = (self._generation(ranked, tokenized) for ranked in zip(*found, strict=False))
        return replace(best, alternatives=tuple(others))

    def _generation(self, hypotheses: Iterable[Hypothesis], tokenized: bool) -> Generation:
        hypotheses = list(hypotheses)
        text = " ".join(filter(None, (self.tokenizer.decode(hypothesis.ids) for hypothesis in hypotheses)))
        return Generation(
            text if tokenized else self.pipeline.finish_target(text),
            tuple(i for hypothesis in hypotheses for i in hypothesis.ids),
            tuple(logprob for hypothesis in hypotheses for logprob in hypothesis.logprobs),
            "stop" if all(hypothesis.finished for hypothesis in hypotheses) else "length",
            sum(hypothesis.score for hypothesis in hypotheses),
        )


def load(name: str | Path, *, precision: Precision = "fp32") -> Model:
    """`Model.load`: the model in a checkpoint or run folder, or one that comes with the package, by name."""
    return Model.load(name, precision=precision)


def _at_precision(network: nn.Module, precision: str) -> nn.Module:
    if precision not in PRECISIONS:
        hint = did_you_mean(str(precision), PRECISIONS)
        raise InputError(f"'precision' must be one of {', '.join(PRECISIONS)}, got {precision!r}.{hint}")
    if precision == "int8":
        return int8(network)
    return network.bfloat16() if precision == "bf16" else network


def _lines(text: str | Sequence[str]) -> list[str]:
    lines = [text] if isinstance(text, str) else list(text)
    for number, line in enumerate(lines, 1):
        if not isinstance(line, str):
            raise InputError(f"a model translates a string or a list of strings; item {number} is {line!r}.")
    return lines


def _batches(lengths: list[int], tokens: int) -> Iterator[list[int]]:
    """Rows of like length, the longest first, so that rows × longest is at most `tokens` (or the batch is one row)."""
    order = sorted(range(len(lengths)), key=lambda row: -lengths[row])
    while order:
        count = max(1, tokens // lengths[order[0]])
        yield order[:count]
        order = order[count:]
