"""Networks whose first blocks are known: an edit changes nothing before its block, so that these need not run again.

For encoders, and encoder-decoders on both sides. Of a decoder by itself more is known (`prefix.py`).
"""

from __future__ import annotations

from typing import Any

from jaxtyping import Float, Int
from torch import Tensor, nn

from glassformer.interpret.acting import Chain, Keep
from glassformer.interpret.inputs import Inputs, Rows
from glassformer.interpret.running import Plan, run
from glassformer.layers.sites import replaced
from glassformer.models.encoder import Encoder
from glassformer.models.encoder_decoder import EncoderDecoder


class KnownBlocks:
    """What every block of some texts gave when they were first run; `plain` are the logits at their ends."""

    def __init__(self, network: Encoder | EncoderDecoder, inputs: Inputs, rows: Rows) -> None:
        self.network, self.inputs = network, inputs
        self.stacks = ("encoder", "decoder") if isinstance(network, EncoderDecoder) else ("stack",)
        keeps = {
            (stack, layer): Keep("stream", None, False)
            for stack in self.stacks
            for layer in range(len(getattr(network, stack).blocks))
        }
        taps = {_site(*place): Chain([keep]) for place, keep in keeps.items()}
        self.plain = run(network, inputs, rows, Plan(taps, {}, {}), ends=True)
        self.given: dict[tuple[str, int], Tensor] = {place: keep.values[0] for place, keep in keeps.items()}

    def before(self, site: str, layer: int, text: Int[Tensor, e]) -> nn.Module:
        """The network for some of the texts, in which all that comes before a site's block `layer` is known."""
        stack = site.partition(".")[0] if len(self.stacks) == 2 else "stack"
        blocks: dict[str, nn.Module] = {}
        for name in self.stacks:
            count = layer if name == stack else len(getattr(self.network, name).blocks)
            for number in range(count):
                last = number == count - 1
                blocks[f"{name}.blocks.{number}"] = _Known(self.given[name, number][text] if last else None)
            if name == stack:
                break  # the decoder comes after the encoder
        return replaced(self.network, blocks)


class _Known(nn.Module):
    """In the place of a block: gives what the block gave; None where a known one follows it."""

    def __init__(self, value: Float[Tensor, "e T D"] | None) -> None:
        super().__init__()
        self.value = value

    def forward(self, x: Float[Tensor, "e T D"], *_: Any) -> Float[Tensor, "e T D"]:
        return x if self.value is None else self.value[:, : x.shape[1]]

    @property
    def cross_attention(self) -> _Known:
        """Asked for what it would look up, like that of a block: nothing."""
        return self

    def keys_values(self, encoded: Tensor) -> None:
        """Nothing."""


def _site(stack: str, layer: int) -> str:
    return f"residual_post[{layer}]" if stack == "stack" else f"{stack}.residual_post[{layer}]"
