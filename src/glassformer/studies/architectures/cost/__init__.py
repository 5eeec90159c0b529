"""What a step of training and of decoding costs as sequences get longer, beside table 1 of Vaswani et al. 2017."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from glassformer.layers.attention import Attention
from glassformer.layers.cache import DecodingState
from glassformer.layers.convolution import GatedConvolution
from glassformer.layers.recurrence import Recurrence
from glassformer.models.convolutional import ConvolutionalState
from glassformer.models.recurrent import RecurrentState
from glassformer.studies.architectures.cost.drawing import draw, tables
from glassformer.studies.architectures.cost.verdicts import claims
from glassformer.studies.architectures.measuring import (
    VOCABULARY,
    Timing,
    build,
    configs,
    forward,
    pairs,
    rounds,
    saved_bytes,
    step,
    timing,
)
from glassformer.studies.study import Part, Result, Setting

HEADS, KERNEL = 4, 3
ROWS = 2
"""Sequences in a step: more would only multiply what the longest need."""

DECODING_ROWS, SOURCE = 4, 16
"""Sequences that are written at once, and how many words each source has: what is written gets longer, not it."""

State = DecodingState | RecurrentState | ConvolutionalState


def run(setting: Setting) -> Result:
    """Times and bytes of steps, of single layers and of decoding, at lengths that double."""
    lengths = [16 * 2**power for power in range(setting.pick(3, 7, 9))]
    decoded = [16 * 2**power for power in range(setting.pick(2, 5, 9))]
    often, width = timing(setting), setting.pick(32, 128, 128)
    families = configs(setting.pick(60_000, 400_000, 400_000), lengths[-1])
    networks = {name: build(config) for name, config in families.items()}
    return {
        "lengths": lengths,
        "rows": ROWS,
        "threads": torch.get_num_threads(),
        "widths": {name: config.d_model for name, config in families.items()},
        "parameters": {name: _parameters(network) for name, network in networks.items()},
        "steps": _steps(networks, lengths, often, setting.say),
        "layer_width": width,
        "layers": _layers(width, lengths, often),
        "decoding_lengths": decoded,
        "decoding_rows": DECODING_ROWS,
        "source": SOURCE,
        "decoding": _decoding(networks, decoded, often.repeats),
    }


def _parameters(network: nn.Module) -> int:
    """All but tables of learned positions, which grow with the length that a network is made for."""
    return sum(each.numel() for name, each in network.named_parameters() if not name.endswith("embedding.position"))


def _steps(
    networks: Mapping[str, Any], lengths: Sequence[int], often: Timing, say: Callable[[str], None]
) -> dict[str, Any]:
    """Seconds (a row of repeats a length) and bytes kept for the backward pass of each family's training step."""
    found: dict[str, Any] = {name: {"seconds": [], "bytes": []} for name in networks}
    for length in lengths:
        batch = pairs(ROWS, length)
        seconds = rounds({name: step(network, batch) for name, network in networks.items()}, often)
        for name, network in networks.items():
            found[name]["seconds"].append(seconds[name])
            found[name]["bytes"].append(saved_bytes(network, forward(network, batch)))
        say(f"   steps of {length} words")
    return found


def _layers(width: int, lengths: Sequence[int], often: Timing) -> dict[str, Any]:
    """The same for one layer of each kind, all of the same width."""
    layers = layer_kinds(width)
    found: dict[str, Any] = {name: {"seconds": [], "bytes": []} for name in layers}
    for length in lengths:
        x = torch.randn(ROWS, length, width, requires_grad=True)
        gradient = torch.randn(ROWS, length, width)
        works = {name: _both_ways(call, x, gradient) for name, (_, call) in layers.items()}
        seconds = rounds(works, often)
        for name, (layer, call) in layers.items():
            found[name]["seconds"].append(seconds[name])
            found[name]["bytes"].append(saved_bytes(layer, partial(call, x)))
    return found


def layer_kinds(width: int) -> dict[str, tuple[nn.Module, Callable[[Tensor], Tensor]]]:
    """A layer of each kind with how it is called on [B, T, width]: those of table 1 that the families are made of."""
    attention = Attention(width, HEADS, width // HEADS)
    recurrence = Recurrence("lstm", width, width)
    convolution = GatedConvolution(width, KERNEL)
    reach = KERNEL // 2
    return {
        "self-attention": (attention, lambda x: attention(*attention.queries_keys_values(x))),
        "recurrence": (recurrence, lambda x: recurrence(x)[0]),
        "convolution": (convolution, lambda x: convolution(F.pad(x, (0, 0, reach, reach)))),
    }


def _both_ways(call: Callable[[Tensor], Tensor], x: Tensor, gradient: Tensor) -> Callable[[], None]:
    return lambda: call(x).backward(gradient)


def _decoding(networks: Mapping[str, Any], lengths: Sequence[int], repeats: int) -> dict[str, Any]:
    """Seconds until so many words are written (a row of repeats a length), and bytes that a row's state then holds.

    `written` is what grew from the words written, `read` what a source of as many words would hold.
    """
    found: dict[str, Any] = {}
    for name, network in networks.items():
        network.eval()
        _write(network, lengths[:1])  # warming up
        found[name] = {"seconds": [[] for _ in lengths], "written": []}
        found[name]["read"] = [held(network.start(pairs(1, length).source, 1))[0] for length in lengths]
    for _ in range(repeats):
        for name, network in networks.items():
            seconds, found[name]["written"] = _write(network, lengths)
            for kept, value in zip(found[name]["seconds"], seconds, strict=True):
                kept.append(value)
    return found


def _write(network: Any, lengths: Sequence[int]) -> tuple[list[float], list[float]]:
    """Write words one by one; the seconds from the beginning and the bytes held for a row, at each of the lengths."""
    state = network.start(pairs(DECODING_ROWS, SOURCE).source, lengths[-1])
    ids = torch.randint(4, VOCABULARY, (lengths[-1], DECODING_ROWS, 1), generator=torch.Generator().manual_seed(1))
    seconds, written = [], []
    began = time.perf_counter()
    for place in range(lengths[-1]):
        network.step(ids[place], None, state)
        if place + 1 in lengths:
            seconds.append(time.perf_counter() - began)
            written.append(held(state)[1] / DECODING_ROWS)
    return seconds, written


def held(state: State) -> tuple[int, int]:
    """Bytes of the numbers that a decoding state holds: of what was read, and of what was written.

    Of caches that were opened for more positions, those that are filled; masks and counters are left out.
    """
    read = _bytes(part for memory in state.source.memories for part in memory)
    if isinstance(state, DecodingState):
        caches = [part[:, :, : state.end] for cache in state.caches for part in (cache.keys, cache.values)]
        return read, _bytes(caches)
    if isinstance(state, ConvolutionalState):
        return read, _bytes(state.recent)
    carried = [part for each in state.carried for part in (each.state, each.cell) if part is not None]
    return read, _bytes([*carried, state.found])


def _bytes(tensors: Iterable[Tensor]) -> int:
    """What tensors hold; one that stands for several places (the same zeros, expanded) counts for each."""
    return sum(math.prod(tensor.shape) * tensor.element_size() for tensor in tensors)


PART = Part(
    name="cost",
    title="What length costs",
    question=(
        "A text twice as long: how much longer does a step of training take, and how much more memory does it need? "
        "Table 1 of the paper gives the answer on paper, for single layers. Here it is measured."
    ),
    method=(
        "Encoder-decoders with as many parameters each (ConvS2S' table of positions aside; they grow with the "
        f"longest length), {VOCABULARY} random words, {ROWS} rows of equal length in and out. A step is forward and "
        "backward; the optimizer's update, which does not depend on length, is left out. The families take turns; "
        "shown are the median and the range of 3 (toy) or 5 repeats, brief ones the fastest of three calls, one "
        "seed. An exponent p says that the time grows as length to the p: the slope of log time against log length "
        "over the longer half of the lengths, its range being that of the repeats. Memory of a step is measured "
        "exactly: all tensors that autograd saves for the backward pass (torch.autograd.graph.saved_tensors_hooks), "
        "those that share memory once, without parameters and buffers. What a kernel needs only while it runs is "
        "not in it. Single layers stand alone, 32 (toy) or 128 wide, with the gradient of their input. Decoding "
        f"writes one random word after another behind sources of {SOURCE} words, {DECODING_ROWS} rows at once; its "
        "memory is the numbers in the decoding state."
    ),
    run=run,
    draw=draw,
    tables=tables,
    claims=claims,
)
