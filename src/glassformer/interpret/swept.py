"""What a sweep found: a number for every text, layer, head and position, as a table, a picture and JSON."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from glassformer.errors import InputError
from glassformer.interpret.expressions import Expression
from glassformer.interpret.inputs import Inputs
from glassformer.interpret.references import from_the_end
from glassformer.interpret.spans import Places
from glassformer.tasks.intervals import bootstrap


@dataclass(frozen=True, eq=False)
class Sweep:
    """`values[i, l, h, s]` is the metric of text i when the edit was made in layer l, head h (0 where the expression
    names no heads) and slot s of the span alone; NaN where there is no such position or it was not run. `baseline` is
    the metric without any edit. `estimates` are the changes that attribution estimated, where it was asked for.
    """

    expression: Expression
    inputs: Inputs = field(repr=False)
    places: Places = field(repr=False)
    metric: str
    baseline: Float[Tensor, n] = field(repr=False)
    values: Float[Tensor, "n L H k"] = field(repr=False)
    estimates: Float[Tensor, "n L H k"] | None = field(repr=False)

    def __len__(self) -> int:
        return len(self.baseline)

    @property
    def changes(self) -> Float[Tensor, "n L H k"]:
        """The metric with the edit less without it."""
        return self.values - self.baseline[:, None, None, None]

    def mean(self, estimated: bool = False) -> Float[Tensor, "L H k"]:
        """The mean change over the texts. Slots are counted from the end of the span, the last one is last."""
        changes = self.estimates if estimated else self.changes
        if changes is None:
            raise InputError("nothing was estimated: sweep with method='attribution'.")
        moved = self._from_the_end(changes)
        real = ~moved.isnan()
        return torch.where(real.any(0), moved.nansum(0) / real.sum(0).clamp_min(1), torch.nan)

    def best(self, count: int = 10) -> list[dict[str, Any]]:
        """The places with the largest mean changes that were run: site, head, slot from the end (-1 is the last), mean,
        95 % bootstrap interval over the texts, and in how many texts it is."""
        means = self.mean()
        order = means.abs().nan_to_num(-1.0).flatten().argsort(descending=True)[:count]
        moved = self._from_the_end(self.changes)
        found = []
        for layer, head, slot in zip(
            *(index.tolist() for index in torch.unravel_index(order, means.shape)), strict=True
        ):
            column = moved[:, layer, head, slot]
            column = column[~column.isnan()]
            if len(column):
                found.append(self._row(layer, head, slot - means.shape[2], column))
        return found

    def table(self, count: int = 10) -> str:
        """The largest mean changes as text."""
        lines = [f"change of {self.metric}, mean over the texts (95 % interval), n"]
        for row in self.best(count):
            head = "" if self.expression.heads is None else f".head[{row['head']}]"
            lines.append(
                f"{row['site']}{head} @ {self.expression.at} [{row['slot']}]  {row['mean']:+.4f} "
                f"({row['low']:+.4f} to {row['high']:+.4f})  {row['n']}"
            )
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """Mean changes [L][H][k] and the best places, as plain values; None where nothing was run."""
        means = [[[None if v != v else v for v in row] for row in layer] for layer in self.mean().tolist()]
        return {
            "expression": self.expression.text,
            "sites": list(self.expression.names),
            "heads": None if self.expression.heads is None else list(self.expression.heads),
            "metric": self.metric,
            "n": len(self),
            "baseline": float(self.baseline.mean()),
            "mean": means,
            "best": self.best(),
        }

    def plot(self, path: str | Path) -> Path:
        """A heat map of the mean changes, layers × positions or layers × heads, as a picture file."""
        try:
            from matplotlib.figure import Figure
        except ImportError:
            raise InputError("a picture needs matplotlib: pip install 'glassformer[plots]'.") from None
        means = self.mean()
        by_head = self.expression.heads is not None
        shown = means.nansum(2) if by_head else means[:, 0]
        limit = max(float(shown.abs().nan_to_num().max()), 1e-12)
        figure: Any = Figure(figsize=(2 + 0.25 * shown.shape[1], 2 + 0.2 * shown.shape[0]), layout="constrained")
        axes = figure.subplots()
        image = axes.imshow(shown.numpy(), aspect="auto", cmap="RdBu_r", vmin=-limit, vmax=limit)
        axes.set_ylabel("layer")
        axes.set_yticks(range(len(self.expression.names)), self.expression.layers or ["-"])
        axes.set_xlabel("head" if by_head else "position")
        axes.set_xticks(range(shown.shape[1]), self._columns(shown.shape[1], by_head), rotation=90)
        axes.set_title(f"{self.expression.site} @ {self.expression.at}, n = {len(self)}")
        figure.colorbar(image, label=f"change of {self.metric}")
        figure.savefig(path, dpi=120)
        return Path(path)

    def _from_the_end(self, changes: Float[Tensor, "n L H k"]) -> Float[Tensor, "n L H k"]:
        """Changes with the last slot of every text last, NaN where a text has fewer."""
        moved, real = from_the_end(changes, self.places, 3)
        return moved.masked_fill(~real[:, None, None].to(moved.device), torch.nan)

    def _row(self, layer: int, head: int, slot: int, column: Tensor) -> dict[str, Any]:
        interval = bootstrap(column.tolist())
        return {
            "site": self.expression.names[layer],
            "head": None if self.expression.heads is None else self.expression.heads[head],
            "slot": slot,
            "mean": float(column.mean()),
            "low": interval.low,
            "high": interval.high,
            "n": len(column),
        }

    def _columns(self, count: int, by_head: bool) -> list[str]:
        if by_head:
            return [str(head) for head in self.expression.heads or ()]
        index: Int[Tensor, k] = self.places.index[0]
        if len(self) > 1:
            return [str(slot - count) for slot in range(count)]
        return [str(int(position)) for position in index]
