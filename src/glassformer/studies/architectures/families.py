"""The networks that are compared, with as many parameters each: what differs is how they are wired."""

from __future__ import annotations

from collections.abc import Callable

from glassformer.errors import InputError
from glassformer.models.config import AnyConfig, Config, ConvolutionalConfig, RecurrentConfig
from glassformer.models.counting import count

WITHIN = 0.03
"""Parameter counts differ by at most so much."""

COLORS = {
    "Transformer": "C0",
    "ConvS2S": "C1",
    "LSTM": "C2",
    "LSTM without attention": "C3",
    "RNN": "C4",
    "RNN without attention": "C5",
}
"""The families by name, each with its color in all figures."""


def matched(
    parameters: int, vocab_size: int, *, layers: int = 2, max_length: int = 64, names: tuple[str, ...] = ()
) -> dict[str, AnyConfig]:
    """A config for each family (all, or `names` of `COLORS`) of about so many parameters, none with dropout.

    The Transformer and ConvS2S have `layers` on each side, the recurrent networks one; their width is what fits.
    Encoder-decoders all, so that the same task can be given to each. `InputError` where a family cannot be fitted
    within 3 % by its width.
    """
    shared = {"vocab_size": vocab_size, "max_length": max_length, "dropout": 0.0}
    both = {"n_encoder_layers": layers, "n_decoder_layers": layers}

    def transformer(width: int) -> AnyConfig:
        """The feed-forward's width finds the number, under the widest stream that leaves it twice that."""
        d_model = 4

        def of(d_model: int, d_ff: int) -> Config:
            return Config(d_model=d_model, n_heads=4, d_ff=d_ff, norm_first=True, **both, **shared)  # type: ignore[arg-type]

        while count(of(d_model + 4, 2 * (d_model + 4))).total <= parameters:
            d_model += 4
        return of(d_model, width)

    def recurrent(cell: str, attention: str) -> Callable[[int], AnyConfig]:
        return lambda width: RecurrentConfig(d_model=width, cell=cell, attention=attention, **shared)  # type: ignore[arg-type]

    makers: dict[str, tuple[Callable[[int], AnyConfig], int]] = {
        "Transformer": (transformer, 1),
        "ConvS2S": (lambda width: ConvolutionalConfig(d_model=width, **both, **shared), 1),  # type: ignore[arg-type]
        "LSTM": (recurrent("lstm", "multiplicative"), 2),
        "LSTM without attention": (recurrent("lstm", "none"), 2),
        "RNN": (recurrent("rnn", "multiplicative"), 2),
        "RNN without attention": (recurrent("rnn", "none"), 2),
    }
    return {name: _sized(name, *makers[name], parameters) for name in (names or COLORS)}


def _sized(name: str, make: Callable[[int], AnyConfig], step: int, parameters: int) -> AnyConfig:
    """The config whose width brings it nearest to so many parameters."""

    def total(width: int) -> int:
        return count(make(width)).total

    low, high = 8, 8  # even, and whole heads
    while total(high) < parameters:
        low, high = high, 2 * high
    while high - low > step:
        middle = (low + high) // 2 // step * step
        low, high = (middle, high) if total(middle) < parameters else (low, middle)
    best = min((low, high), key=lambda width: abs(total(width) - parameters))
    if abs(total(best) / parameters - 1) > WITHIN:
        raise InputError(
            f"{name} cannot have {parameters:,} parameters within {WITHIN:.0%}: width {best} gives {total(best):,}."
        )
    return make(best)
