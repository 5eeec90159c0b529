"""One layer of recurrence: every state is made of the input there and of the state before it."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from glassformer.layers.sites import Taps

Cell = Literal["lstm", "rnn"]


@dataclass(frozen=True)
class Carried:
    """What a layer hands from one step to the next: its last state and, of an LSTM, the cell that keeps long ones."""

    state: Float[Tensor, "B D"]
    cell: Float[Tensor, "B D"] | None = None

    def select(self, rows: Int[Tensor, "n"]) -> "Carried":
        """Row i is old row rows[i]."""
        return Carried(self.state[rows], None if self.cell is None else self.cell[rows])


class Recurrence(nn.Module):
    """An LSTM (Hochreiter & Schmidhuber 1997; forget gates by Gers et al. 2000) or a plain tanh network (Elman 1990).

    LSTM: i, f, o = σ(W x + U h + b), g = tanh(W x + U h + b), c ← f · c + i · g, h ← o · tanh(c); "rnn":
    h ← tanh(W x + U h + b). With `both_ways`, half of the width reads from the right. Site `output` holds all states.
    """

    def __init__(self, cell: Cell, d_in: int, d_model: int, both_ways: bool = False) -> None:
        super().__init__()
        kind = nn.LSTM if cell == "lstm" else nn.RNN
        self.network = kind(d_in, d_model // (1 + both_ways), batch_first=True, bidirectional=both_ways)
        self.taps = Taps("output")

    def forward(
        self, x: Float[Tensor, "B T i"], lengths: Int[Tensor, "B"] | None = None, before: Carried | None = None
    ) -> tuple[Float[Tensor, "B T D"], Carried]:
        """All states, and what is carried on from each row's last position; row b has `lengths[b]` ≥ 1 (None: all).

        States of padding are zeros. Begins with zeros unless `before` is what a step before carried on.
        """
        start = None if before is None else self._start(before)
        if lengths is None:
            states, end = self.network(x, start)
        else:
            packed = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
            states, end = self.network(packed, start)
            states, _ = pad_packed_sequence(states, batch_first=True, total_length=x.shape[1])
        return self.taps.output(states), self._carried(end)

    def _start(self, before: Carried) -> Tensor | tuple[Tensor, Tensor]:
        state = before.state[None].contiguous()
        return state if before.cell is None else (state, before.cell[None].contiguous())

    def _carried(self, end: Tensor | tuple[Tensor, Tensor]) -> Carried:
        """The ends of both directions side by side."""
        if isinstance(end, Tensor):
            return Carried(torch.cat(tuple(end), -1))
        return Carried(*(torch.cat(tuple(part), -1) for part in end))


def initialize_recurrence(layer: Recurrence) -> None:
    """Orthogonal recurrent matrices, Xavier-uniform input matrices for each gate, biases 0; forget gates open at 1.

    Jozefowicz et al. 2015 found that bias to matter most of all for what an LSTM keeps.
    """
    hidden = layer.network.hidden_size
    for name, parameter in layer.network.named_parameters():
        if name.startswith("bias"):
            nn.init.zeros_(parameter)
            if name.startswith("bias_ih") and parameter.shape[0] == 4 * hidden:
                with torch.no_grad():
                    parameter[hidden : 2 * hidden] = 1.0
            continue
        for gate in parameter.split(hidden):
            (nn.init.orthogonal_ if name.startswith("weight_hh") else nn.init.xavier_uniform_)(gate)
