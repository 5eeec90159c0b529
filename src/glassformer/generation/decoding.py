"""Beam search and greedy decoding, for every network that has the seam `start`, `step` and `state.select`.

R is the number of sources, W the hypotheses that live for each, V the vocabulary. All hypotheses of all sources go
forward together, one token a step; sources that are done leave the batch.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from jaxtyping import Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from glassformer.errors import InputError
from glassformer.generation.search import Hypothesis, Search


class Decodable(Protocol):
    """What decoding asks of a network; `config` has `pad_id`, `bos_id`, `eos_id` and `max_length`."""

    training: bool

    @property
    def config(self) -> Any: ...
    def start(self, source: Tensor, capacity: int) -> Any: ...
    def step(self, ids: Tensor, lengths: Tensor | None, state: Any) -> Tensor: ...
    def train(self, mode: bool = True) -> Any: ...


@torch.inference_mode()
def beam_search(
    network: Decodable,
    source: Int[Tensor, "R S"],
    *,
    beam: int = 5,
    n_best: int = 1,
    length_penalty: float = 1.0,
    max_length: int | None = None,
    min_length: int = 0,
) -> list[list[Hypothesis]]:
    """The `n_best` best outputs found for each source, the best first.

    Keeps the `beam` most probable unfinished hypotheses of each source. One that ends with `</s>` while among the
    `beam` best is finished; a source is done when `beam` are finished, or no living one can still come to be among the
    `n_best`. Finished hypotheses are ranked by log p(y | x) / ((5 + |y|) / 6)^length_penalty (Wu et al. 2016, equation
    14; Vaswani et al. 2017, section 6.1), where |y| counts `</s>`. After them come, if there are too few, hypotheses
    cut off at `max_length` tokens (by default twice the source's length plus 50, or the network's positions if those
    are fewer). `</s>` is not chosen before `min_length` other tokens; padding and `<s>` never are, unless they are
    `</s>` as well. With `min_length` = `max_length` = n every output has exactly n tokens and no `</s>`.

    `source` is padded on the right; what is found for a source does not depend on the others. Runs in evaluation mode
    and without gradients, and leaves the network's mode as it was. Raises `InputError` for settings that cannot hold
    and for a network whose outputs are not numbers.
    """
    _check(network, source, beam, n_best, max_length, min_length)
    limits = _limits(network, source, max_length)
    config = network.config
    never = {config.pad_id, config.bos_id} - {config.eos_id}  # what begins a target may also end it, as in BART
    search = Search(limits, beam, n_best, length_penalty, min_length, (config.eos_id,), tuple(never))
    with evaluation(network):
        state = network.start(source, int(limits.max()))
        ids = torch.full((len(source), 1), config.bos_id, device=source.device)
        while True:
            rows = search.advance(network.step(ids, None, state))
            if rows is None:
                return search.results()
            if search.moved:
                state.select(rows)
            ids = search.last


@torch.inference_mode()
def continue_by_beam(
    network: Any,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    eos_ids: Sequence[int],
    beam: int = 5,
    n_best: int = 1,
    length_penalty: float = 1.0,
    device: torch.device | str = "cpu",
) -> list[list[Hypothesis]]:
    """The `n_best` best continuations found for each prompt, the best first: `beam_search` for a `Decoder`.

    A continuation ends with one of `eos_ids`, or is cut off after `max_new_tokens` or at the network's last position;
    |y| counts its own tokens only. No token is forbidden. Prompts have at least one id each; what is found for one does
    not depend on the others.
    """
    room = [min(max_new_tokens, network.config.max_length - len(prompt)) for prompt in prompts]
    rows = [row for row, limit in enumerate(room) if limit > 0]
    found = [[Hypothesis((), 0.0, (), False)] for _ in prompts]
    if not rows:
        return found
    ids = pad_sequence([torch.tensor(prompts[row]) for row in rows], batch_first=True).to(device)
    lengths = torch.tensor([len(prompts[row]) for row in rows], device=device)
    limits = torch.tensor([room[row] for row in rows], device=device)
    search = Search(limits, beam, n_best, length_penalty, 0, eos_ids)
    with evaluation(network):
        state = network.start(len(rows), int((lengths + limits).max()))
        going = search.advance(network.step(ids, lengths, state))
        while going is not None:
            if search.moved:
                state.select(going)
            for row in search.idle:  # their sources may have fewer positions than are still to come
                state.rewind(row, 0)
            going = search.advance(network.step(search.last, None, state))
    for row, hypotheses in zip(rows, search.results(), strict=True):
        found[row] = hypotheses
    return found


def greedy(
    network: Decodable, source: Int[Tensor, "R S"], *, max_length: int | None = None, min_length: int = 0
) -> list[Hypothesis]:
    """The most probable token at every step: `beam_search` with a beam of one."""
    found = beam_search(network, source, beam=1, max_length=max_length, min_length=min_length)
    return [hypotheses[0] for hypotheses in found]


def _check(network: Decodable, source: Tensor, beam: int, n_best: int, max_length: int | None, min_length: int) -> None:
    if source.ndim != 2 or 0 in source.shape:
        raise InputError(f"sources must be ids of shape [rows, positions], got {list(source.shape)}.")
    if beam < 1:
        raise InputError(f"'beam' must be at least 1, got {beam}.")
    if not 1 <= n_best <= beam:
        raise InputError(f"'n_best' must be from 1 to the beam ({beam}), got {n_best}: give a wider beam.")
    positions = network.config.max_length
    if max_length is not None and not 1 <= max_length <= positions:
        raise InputError(f"'max_length' must be from 1 to the model's {positions} positions, got {max_length}.")
    if not 0 <= min_length <= (max_length or positions):
        raise InputError(f"'min_length' must be from 0 to {max_length or positions}, got {min_length}.")


def _limits(network: Decodable, source: Tensor, max_length: int | None) -> Int[Tensor, "R"]:
    """The most tokens that each source's output may have."""
    if max_length is not None:
        return torch.full((len(source),), max_length, device=source.device)
    lengths = (source != network.config.pad_id).sum(1)
    return (2 * lengths + 50).clamp(max=network.config.max_length)


@contextmanager
def evaluation(network: Any) -> Iterator[None]:
    """Evaluation mode inside; untouched where it already is, so that threads may share a network that serves."""
    training = getattr(network, "training", False)
    if training:
        network.train(False)
    try:
        yield
    finally:
        if training:
            network.train(True)
