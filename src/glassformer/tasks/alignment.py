"""Which source tokens each target token looks at: cross-attention as an alignment (Bahdanau et al. 2015, figure 3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from glassformer.errors import InputError
from glassformer.layers.sites import record, sites

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

    from glassformer.tasks.fonts import Lettering
    from glassformer.tasks.model import Generation, Model

_FORMATS = (".png", ".svg", ".pdf")
_CELL = 0.26  # inches a token


@dataclass(frozen=True)
class Alignment:
    """`pattern` [T, S]: how much the step that writes target token t looks at source token s; rows sum to 1.

    Both sides end with `</s>`, but for a target that was cut off. `layer` is the decoder layer whose cross-attention
    this is, averaged over its heads.
    """

    pattern: Tensor
    source: tuple[str, ...]
    target: tuple[str, ...]
    layer: int


def align(
    model: Model,
    source: str,
    target: str | Generation | None = None,
    *,
    layer: int = -1,
    tokenized: bool = False,
) -> Alignment:
    """Align a source with a target: a text, a result of `translate`, or (None) the model's own translation.

    `layer` counts from 0, or from the last one backwards. `tokenized`: the texts are tokens separated by spaces.
    Raises `InputError` for a layer that the model has not and for a side that is empty or too long.
    """
    names = [name for name in sites(model.network) if name.startswith("decoder.cross_attention.pattern")]
    if not -len(names) <= layer < len(names):
        raise InputError(f"'layer' must be from 0 to {len(names) - 1}, or negative from the last, got {layer}.")
    source_ids, target_ids = _source_ids(model, source, tokenized), _target_ids(model, source, target, tokenized)
    limit = model.config.max_length
    for side, ids in (("source", source_ids), ("target", target_ids)):
        if not 1 < len(ids) <= limit:
            raise InputError(f"the {side} to align must have from 1 to {limit - 1} tokens, got {len(ids) - 1}.")
    network, values = record(model.network, [names[layer]])
    given = torch.tensor([[model.config.bos_id, *target_ids[:-1]]], device=model.device)
    with torch.no_grad():  # the copy has a mode of its own
        network.eval()(torch.tensor([source_ids], device=model.device), given)
    return Alignment(
        values[names[layer]][0].float().mean(0).cpu(),
        tuple(model.tokenizer.tokens(source_ids)),
        tuple(model.tokenizer.tokens(target_ids)),
        layer % len(names),
    )


def draw(alignments: Alignment | Sequence[Alignment], path: str | Path) -> Path:
    """Draw alignments side by side into `path` (PNG, SVG or PDF): source tokens across, target tokens down.

    Raises `InputError` without matplotlib (the extra `plots`), and for a path that cannot be written.
    """
    alignments = [alignments] if isinstance(alignments, Alignment) else list(alignments)
    path = Path(path)
    if path.suffix.lower() not in _FORMATS:
        raise InputError(f"{path}: a picture's name must end in {', '.join(_FORMATS)}.")
    try:
        from glassformer.tasks.fonts import Lettering
    except ImportError:
        raise InputError(
            "drawing needs matplotlib, which is not installed: pip install 'glassformer[plots]' brings it."
        ) from None
    lettering = Lettering("".join(token for each in alignments for token in (*each.source, *each.target)))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with lettering.style():
            _figure(alignments, lettering).savefig(path, dpi=150, bbox_inches="tight")
    except OSError as error:
        raise InputError(f"{path}: the picture cannot be written ({error.strerror or error}).") from None
    return path


def draw_alignment(
    model: Model,
    source: str,
    path: str | Path,
    *,
    target: str | Generation | None = None,
    layer: int = -1,
    tokenized: bool = False,
) -> Path:
    """`draw` what `align` finds: the picture of one source and its target, by default the model's own translation."""
    return draw(align(model, source, target, layer=layer, tokenized=tokenized), path)


def _figure(alignments: list[Alignment], lettering: Lettering) -> Figure:
    from matplotlib.figure import Figure

    widths = [len(each.source) for each in alignments]
    height = max(len(each.target) for each in alignments)
    size = (_CELL * sum(widths) + 1.6 * len(alignments) + 0.8, _CELL * height + 1.8)
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(1, len(alignments), squeeze=False, width_ratios=widths)[0]
    for axes, each in zip(panels, alignments, strict=True):
        image = _panel(axes, each, lettering)
    bar = figure.colorbar(image, ax=list(panels), fraction=0.3 / size[0], shrink=0.6, aspect=16, pad=0.01)
    bar.set_label("attention", fontsize=8, color="0.35")
    bar.ax.tick_params(labelsize=8, length=0)
    bar.outline.set_visible(False)
    return figure


def _panel(axes: Axes, alignment: Alignment, lettering: Lettering) -> AxesImage:
    image = axes.imshow(alignment.pattern.numpy(), cmap="Blues", vmin=0, vmax=1, aspect="equal")
    across = [lettering.label(token) for token in alignment.source]
    down = [lettering.label(token) for token in alignment.target]
    axes.set_xticks(range(len(across)), across)
    axes.set_yticks(range(len(down)), down)
    axes.tick_params(top=True, labeltop=True, bottom=False, labelbottom=False, length=0, labelsize=9)
    for text in (*axes.get_xticklabels(), *axes.get_yticklabels()):
        text.set_parse_math(False)  # a token may be a dollar sign
    for text in axes.get_xticklabels():
        text.set_rotation(90 if len(text.get_text()) > 1 else 0)
    axes.set_xticks([i + 0.5 for i in range(len(across) - 1)], minor=True)
    axes.set_yticks([i + 0.5 for i in range(len(down) - 1)], minor=True)
    axes.grid(which="minor", color="0.92", linewidth=0.6)
    axes.tick_params(which="minor", length=0)
    axes.spines[:].set_color("0.7")
    axes.set_xlabel(f"decoder.cross_attention.pattern[{alignment.layer}], mean of its heads", fontsize=8, color="0.35")
    return image


def _source_ids(model: Model, source: str, tokenized: bool) -> list[int]:
    text = " ".join(source.split()) if tokenized else model.pipeline.prepare_source(source)
    return [*model.tokenizer.encode(text), model.config.eos_id]


def _target_ids(model: Model, source: str, target: str | Generation | None, tokenized: bool) -> list[int]:
    if isinstance(target, str):
        text = " ".join(target.split()) if tokenized else model.pipeline.prepare_target(target)
        return [*model.tokenizer.encode(text), model.config.eos_id]
    result = model.translate(source, beam=1, tokenized=tokenized) if target is None else target
    return list(result.ids)
