"""The view "positions": how a model knows where a token stands.

`"positions"` has `parts`, one for each stack that knows it in a way of its own. A part has

    title: whose positions, in words        kind: "sinusoidal", "learned", "rotary" or "relative"
    says: what is done with them, in words  side: whose `tokens` [T] stand there, "text" or "target"
    length: how many positions there are    width: of how many numbers one is made
    columns [C]: which of these are shown   values [P][C]: a row for each of the first positions
    distances [N], similarity [N]: how alike two positions are that stand so far apart; `measure` says it in words
    wavelengths [C]: positions after which a column repeats; `period` says where that is known from

"sinusoidal" and "learned": the values are those of the vectors that are added; `lowest` and `highest` [N] are the
extremes of what `similarity` is the mean of. "rotary": a column is a pair of coordinates of queries and keys, by the
first of the two, and the values are cosines of the angles by which it is turned. "relative": a row for each head, the
columns are distances from query to key, the values are added to scores; `buckets` [C] says which distances share one.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from glassformer.layers.block import Stack
from glassformer.layers.positions import RelativeBias, relative_buckets
from glassformer.models.config import Learned, Relative, Rotary, Sinusoidal
from glassformer.models.convolutional import Convolutional
from glassformer.models.encoder_decoder import EncoderDecoder
from glassformer.models.recurrent import Recurrent
from glassformer.serving.documents import Document, headed, rounded
from glassformer.serving.readings import Reading, Spelling, reading
from glassformer.tasks.model import Model

ROWS = 64
"""So many positions are shown, and as many as the text has where these are more."""
COLUMNS = 128
"""The most numbers of a position that are shown, evenly chosen from all."""
FARTHEST = 128
"""The greatest distance."""
COMPARED = 512
"""Cosines are taken among so many positions."""

_NONE = (
    "a recurrent network has no positions: it reads one token after another, and its state knows the order because it "
    "was made in that order."
)


def positions_document(model: Model, text: str, target: str | None = None) -> Document:
    """How the model knows where the tokens of a text stand: vectors, angles, or numbers for distances.

    `target` is what an encoder-decoder is to write, by default its own (greedy search). Raises `InputError` as
    `readings.reading`.
    """
    if isinstance(model.network, Recurrent):
        return headed(model, text, {"view": "positions", "missing": _NONE})
    given = reading(model, text, target)
    return headed(model, text, {"view": "positions", "parts": _parts(model, given)})


def _parts(model: Model, given: Reading) -> list[Document]:
    """One for each stack, or one for both where they have the same table."""
    network: Any = model.network
    if not isinstance(network, EncoderDecoder | Convolutional):
        return [_part(model, network.stack, "", given.ids)]
    stacks: list[Any] = [network.encoder, network.decoder]
    tables = [table for table in map(_table, stacks) if table is not None]
    if len(tables) == 2 and torch.equal(*tables):
        return [_part(model, stacks[0], "encoder and decoder, alike", given.ids)]
    decoder = {**_part(model, stacks[1], "decoder", given.read), "side": "target"}
    return [_part(model, stacks[0], "encoder", given.ids), decoder]


def _table(stack: Stack) -> Tensor | None:
    """The vectors or cosines of all positions; None where only distances count."""
    vectors = stack.embedding.position
    return vectors if vectors is not None else getattr(stack, "cos", None)


def _part(model: Model, stack: Stack, title: str, ids: tuple[int, ...]) -> Document:
    kind = getattr(model.config, "positions", Learned())
    part: Document = {"title": title, "kind": type(kind).__name__.lower(), "side": "text"}
    part["tokens"] = Spelling(model.tokenizer)(ids)
    rows = max(ROWS, len(ids))
    if isinstance(kind, Relative):
        assert isinstance(stack.relative, RelativeBias)
        return part | _relative(stack.relative)
    if isinstance(kind, Rotary):
        assert stack.cos is not None
        return part | _rotary(stack.cos, kind.base, rows)
    vectors = stack.embedding.position
    assert vectors is not None
    part |= _vectors(vectors.detach().double().cpu(), rows)
    if isinstance(kind, Sinusoidal):
        return part | _sinusoidal(kind, part["width"], part["columns"])
    periods = _strongest_periods(vectors.detach().double().cpu())
    return part | {
        "says": "A trained vector for each position is added to the token's.",
        "period": "the strongest wave in it (Fourier transform over all positions, without the mean)",
        "wavelengths": rounded(periods[part["columns"]]),
    }


# --- Vectors ----------------------------------------------------------------------------------------------------------


def _vectors(table: Tensor, rows: int) -> Document:
    """What sines and learned vectors [T, D] have in common."""
    columns = _evenly(table.shape[1], COLUMNS)
    return {
        "length": table.shape[0],
        "width": table.shape[1],
        "columns": columns,
        "values": rounded(table[:rows, columns]),
        **_likeness(table[:COMPARED]),
        "measure": "the cosine of two position vectors that stand so far apart",
    }


def _likeness(table: Tensor) -> Document:
    """Mean, least and greatest cosine of all pairs of positions at each distance."""
    unit = table / table.norm(dim=1, keepdim=True).clamp_min(1e-12)
    cosines = unit @ unit.T
    lines = [cosines.diagonal(distance) for distance in range(min(FARTHEST + 1, len(table)))]
    return {
        "distances": list(range(len(lines))),
        "similarity": rounded(torch.stack([line.mean() for line in lines])),
        "lowest": rounded(torch.stack([line.min() for line in lines])),
        "highest": rounded(torch.stack([line.max() for line in lines])),
    }


def _sinusoidal(kind: Sinusoidal, width: int, columns: list[int]) -> Document:
    half = (width + 1) // 2
    pairs = [column % half if kind.halves else column // 2 for column in columns]
    waves = [2 * math.pi * 10000.0 ** (2 * pair / width) for pair in pairs]
    sines = [column < half if kind.halves else column % 2 == 0 for column in columns]
    return {
        "says": "A fixed vector of sines and cosines is added to the token's: of position p, sin(p / 10000^(2i/D)) and "
        "cos(p / 10000^(2i/D)).",
        "measure": "the cosine of two position vectors that stand so far apart: the mean of cos(distance · frequency) "
        "over all pairs, wherever they stand",
        "period": "2π · 10000^(2i/D)",
        "wavelengths": rounded(torch.tensor(waves, dtype=torch.float64)),
        "waves": ["sine" if sine else "cosine" for sine in sines],
    }


def _strongest_periods(table: Tensor) -> Tensor:
    """[D], the period of the strongest component of each column, in positions."""
    strength = torch.fft.rfft(table - table.mean(0), dim=0).abs()
    if len(strength) < 2:
        return torch.full((table.shape[1],), float(len(table)), dtype=table.dtype)
    return len(table) / (strength[1:].argmax(0) + 1).double()


def _evenly(count: int, most: int) -> list[int]:
    """Up to `most` of the numbers below `count`, evenly chosen, in pairs of neighbours."""
    if count <= most:
        return list(range(count))
    firsts = [2 * (place * (count // 2) // (most // 2)) for place in range(most // 2)]
    return [column for first in firsts for column in (first, first + 1)]


# --- Angles and distances ---------------------------------------------------------------------------------------------


def _rotary(cos: Tensor, base: float, rows: int) -> Document:
    """`cos` [T, d / 2] are the cosines that turn queries and keys."""
    table, half = cos.double().cpu(), cos.shape[1]
    columns = list(range(half)) if half <= COLUMNS else [place * half // COLUMNS for place in range(COLUMNS)]
    frequency = base ** (-torch.arange(half, dtype=torch.float64) / half)
    distances = torch.arange(min(FARTHEST + 1, len(table)))
    return {
        "says": f"Nothing is added. Queries and keys are turned: coordinates i and i + {half} of position p together, "
        f"by the angle p · {base:g}^(−2i/{2 * half}). A score then knows the distance, and not the places.",
        "length": len(table),
        "width": half,
        "columns": columns,
        "values": rounded(table[:rows, columns]),
        "distances": distances.tolist(),
        "similarity": rounded((distances[:, None] * frequency).cos().mean(1)),
        "measure": "how much of a score is left when a key with the query's own direction stands so far away: the mean "
        "of cos(distance · frequency) over all pairs, which are taken to be equally long",
        "period": f"2π · {base:g}^(2i/{2 * half})",
        "wavelengths": rounded(2 * math.pi / frequency[columns]),
    }


def _relative(bias: RelativeBias) -> Document:
    """T5's numbers for each head and distance, as far as these differ."""
    least = -bias.max_distance
    most = bias.max_distance if bias.both_ways else 0
    away = torch.arange(least, most + 1)
    buckets = relative_buckets(away, bias.buckets, bias.max_distance, bias.both_ways)
    values = bias.weight.detach().double().cpu()[buckets].T
    return {
        "says": "Nothing is added to a token. To each score a trained number is added, by head and distance, in every "
        "layer alike; far distances share one.",
        "length": bias.max_distance,
        "width": len(away),
        "columns": away.tolist(),
        "values": rounded(values),
        "buckets": buckets.tolist(),
        "distances": away.tolist(),
        "similarity": rounded(values.mean(0)),
        "lowest": rounded(values.amin(0)),
        "highest": rounded(values.amax(0)),
        "measure": "what is added to a score, the mean of all heads; negative distances are keys before the query",
    }
