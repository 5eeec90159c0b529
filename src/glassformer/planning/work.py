"""What one rank has to do on a layout: the pieces of a decoder, each run once and remembered."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace

from glassformer.models.config import Config
from glassformer.planning.layouts import Layout, Schedule
from glassformer.planning.pieces import Precision, Run, mean, run_block, run_embedding, run_head
from glassformer.planning.watch import Operation

NUMBER = 4
"""Bytes of a parameter, of its gradient, and of each of the optimizer's two moments: all fp32."""


@dataclass(frozen=True)
class Stage:
    """A rank of one stage of the pipeline: how many blocks it has, and whether the embedding and the head."""

    number: int
    blocks: int
    first: bool
    last: bool


def stages(config: Config, layout: Layout) -> list[Stage]:
    """The stages that differ: the first, which has most micro-batches in flight, the second, and the last."""
    last, each = layout.pipeline - 1, config.n_decoder_layers // layout.pipeline
    return [Stage(n, each, n == 0, n == last) for n in sorted({0, min(1, last), last})]


@dataclass
class Work:
    """A decoder and the length of its rows, on devices of a type; its pieces are run when they are asked for."""

    config: Config
    length: int
    precision: Precision
    device: str = "cpu"
    _blocks: dict[tuple[int, int, int], Run] = field(default_factory=dict)
    _ends: dict[int, tuple[Run, Run]] = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        """Of a number that products are computed in."""
        return 2 if self.precision == "bf16" else 4

    def tokens(self, layout: Layout, schedule: Schedule) -> int:
        """Of a micro-batch, on one rank."""
        return schedule.rows * self.length // layout.context

    def block(self, layout: Layout, schedule: Schedule) -> Run:
        """One block, the average of dense and banded ones. Where positions are cut, the queries of a rank look at the
        keys of all: that is as much work as fewer rows that are whole."""
        whole = schedule.rows % layout.context == 0
        rows, cut = (schedule.rows // layout.context, 1) if whole else (schedule.rows, layout.context)
        key = layout.tensor, cut, rows
        if key not in self._blocks:
            self._blocks[key] = self._mean_block(rows, self.length // cut, cut, layout.tensor)
        return self._blocks[key]

    def _mean_block(self, rows: int, length: int, cut: int, tensor: int) -> Run:
        runs: dict[Run, int] = {}
        bands = Counter(self.config.band(layer) for layer in range(self.config.n_decoder_layers))
        for band, n_layers in bands.items():
            run = run_block(self.config, length, rows, tensor, self.precision, band)
            times = cut if band is None else 1  # a band is as wide for a part of the positions
            runs[replace(run, forward=_over(run.forward, times), backward=_over(run.backward, times))] = n_layers
        return mean(runs)

    def ends(self, layout: Layout, schedule: Schedule) -> tuple[Run, Run]:
        """The embedding and the head, which are whole on every rank that has them."""
        tokens = self.tokens(layout, schedule)
        if tokens not in self._ends:
            length = min(tokens, self.length)
            self._ends[tokens] = (
                run_embedding(self.config, length, tokens // length, self.precision),
                run_head(self.config, tokens, self.precision, self.device),
            )
        return self._ends[tokens]

    def parameters(self, stage: Stage, layout: Layout, schedule: Schedule) -> int:
        """Numbers of a stage on a rank before they are sharded; a matrix tied within the stage counts once."""
        block, (embedding, head) = self.block(layout, schedule), self.ends(layout, schedule)
        tied = self.config.vocab_size * self.config.d_model if self.config.tie_head else 0
        ends = embedding.parameters * stage.first + head.parameters * stage.last
        return stage.blocks * block.parameters + ends - tied * (stage.first and stage.last)


def _over(operations: tuple[Operation, ...], context: int) -> tuple[Operation, ...]:
    return tuple(
        replace(operation, flops=operation.flops * context) if "attention" in operation.name else operation
        for operation in operations
    )
