"""How much of a step can be done at once: rows against length, size of the batch, threads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from glassformer.models.config import AnyConfig, RecurrentConfig
from glassformer.models.counting import count
from glassformer.studies.architectures.measuring import Timing, build, configs, pairs, rounds, step, timing
from glassformer.studies.architectures.parallelism.drawing import draw, tables
from glassformer.studies.architectures.parallelism.verdicts import claims
from glassformer.studies.study import Part, Result, Setting


def run(setting: Setting) -> Result:
    """Steps of as many words in fewer and longer rows; of more rows; of both ends with one thread and with more."""
    words = setting.pick(128, 1024, 4096)
    lengths = [16 * 2**power for power in range(setting.pick(3, 5, 7))]
    often = timing(setting)
    batches, length = setting.pick([1, 4], [1, 4, 16, 64], [1, 2, 4, 8, 16, 32, 64, 128]), 32
    families = configs(setting.pick(60_000, 400_000, 400_000), lengths[-1])
    networks = {name: build(config) for name, config in families.items()}
    shapes = [(words // each, each) for each in lengths]
    ends = [shapes[0], shapes[-1]]
    return {
        "threads": torch.get_num_threads(),
        "words": words,
        "shapes": [list(shape) for shape in shapes],
        "chains": {name: [chain(config, each) for each in lengths] for name, config in families.items()},
        "flops": {name: [flops(config, *shape) for shape in shapes] for name, config in families.items()},
        "shape_seconds": _steps(networks, shapes, often),
        "length": length,
        "batch_chains": {name: chain(config, length) for name, config in families.items()},
        "batch_flops": {name: [flops(config, rows, length) for rows in batches] for name, config in families.items()},
        "batches": batches,
        "batch_seconds": _steps(networks, [(rows, length) for rows in batches], often),
        "thread_counts": _thread_counts(setting.threads),
        "thread_seconds": _threads(networks, ends, often, setting.threads),
    }


def chain(config: AnyConfig, length: int) -> int:
    """How many layers' work has to be done one after another, for sources and targets of a length.

    In a Transformer and in ConvS2S, all places of a layer at once: one for each layer. A recurrent layer can begin a
    place when it has finished the one before and the layer below has finished this place: length + layers - 1 on each
    side.
    """
    sides = (config.n_encoder_layers, config.n_decoder_layers)
    return sum(layers + length - 1 for layers in sides) if isinstance(config, RecurrentConfig) else sum(sides)


def flops(config: AnyConfig, rows: int, length: int) -> int:
    """Additions and multiplications of products in a training step, all places of a causal pattern included."""
    return rows * length * sum(each.training for each in count(config).flops(length).values())


def _steps(networks: Mapping[str, Any], shapes: Sequence[tuple[int, int]], often: Timing) -> dict[str, Any]:
    """Seconds of each family's training step: a row of repeats a shape."""
    found: dict[str, Any] = {name: [] for name in networks}
    for shape in shapes:
        batch = pairs(*shape)
        seconds = rounds({name: step(network, batch) for name, network in networks.items()}, often)
        for name, row in seconds.items():
            found[name].append(row)
    return found


def _thread_counts(threads: int) -> list[int]:
    """1, 2, 4 … and all; nothing where there is only one."""
    if threads == 1:
        return []
    counts = [1]
    while 2 * counts[-1] < threads:
        counts.append(2 * counts[-1])
    return [*counts, threads]


def _threads(
    networks: Mapping[str, Any], shapes: Sequence[tuple[int, int]], often: Timing, threads: int
) -> list[dict[str, Any]]:
    """`_steps` for each number of threads; there are as many as before afterwards."""
    before, found = torch.get_num_threads(), []
    try:
        for number in _thread_counts(threads):
            torch.set_num_threads(number)
            found.append(_steps(networks, shapes, often))
    finally:
        torch.set_num_threads(before)
    return found


PART = Part(
    name="parallelism",
    title="What can be done at once",
    question=(
        "A recurrent network has to finish a word before it can begin the next; attention reads all words at once. How "
        "much of a step has to wait, and what do larger batches and more processor cores help?"
    ),
    method=(
        "Training steps (forward and backward) of networks with as many parameters each, on random words without "
        "padding, source and target of the same length; one seed; median and range of 3 (toy) or 5 repeats, brief "
        "ones the fastest of three calls, the families in turn. First, as many words in many short rows, then in "
        "few long ones: what a step computes stays the same but for attention, what has to wait grows. Second, more "
        "rows of one length. A step's time in all of these is fitted as a · FLOPs + b · words + c · chain + d with "
        "a, b, c, d ≥ 0 (least squares of relative errors): FLOPs are those of all products, words stand for all "
        "that is done to each, chain is the longest series of layers that wait for each other, by the wiring, and d "
        "is what any step needs, however little there is to do. The sequential share is c · chain + d of the sum: "
        "what would be left if products and words cost nothing. Third, threads: Amdahl's law, 1 / speed-up = f + (1 "
        "- f) / threads, gives the share f of the step that they do not help."
    ),
    run=run,
    draw=draw,
    tables=tables,
    claims=claims,
)
