"""The peers' side of `gpt_training.py`: Hugging Face's GPT-2 and a bare torch GPT; in transformers' environment."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import transformers
from conversation import serve
from nanogpt import GPT
from torch import Tensor, nn


@dataclass
class Contender:
    """A network that gives a mean loss, its optimizer, and the number format of its forward pass."""

    network: nn.Module
    loss: Callable[[], Tensor]
    optimizer: torch.optim.Optimizer
    precision: str

    def step(self) -> Tensor:
        """Forward, backward, clipping to 1, fused AdamW."""
        with torch.autocast("cpu", torch.bfloat16, enabled=self.precision == "bf16"):
            loss = self.loss()
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss.detach()


CONTENDERS: dict[str, Contender] = {}


def build(
    folder: str,
    ids: list[list[int]],
    precisions: list[str],
    bare: dict[str, int] | None,
    compile: bool,
    optimizer: dict[str, Any],
    threads: int,
) -> dict[str, Any]:
    """Every contender on one batch, `ids` [B, T + 1]; GPT-2 with the weights of `folder`, `bare` in the same shape."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    batch = torch.tensor(ids)
    inputs, target = batch[:, :-1].contiguous(), batch[:, 1:].contiguous()

    for precision in precisions:
        network = transformers.GPT2LMHeadModel.from_pretrained(folder, dtype=torch.float32)
        options = {"labels": target, "shift_labels": target, "use_cache": False}
        add(f"HF {precision}", network, partial(hugging_face_loss, network, inputs, options), precision, optimizer)
    for compiled in () if bare is None else (False, True) if compile else (False,):
        network, precision = GPT(**bare), precisions[-1]
        forward = torch.compile(network) if compiled else network
        name = f"bare {precision}{' compiled' if compiled else ''}"
        add(name, network, partial(forward, inputs, target), precision, optimizer)
    return {
        "names": list(CONTENDERS),
        "parameters": {name: count(one.network) for name, one in CONTENDERS.items()},
        "transformers": transformers.__version__,
        "torch": torch.__version__,
    }


def add(name: str, network: nn.Module, loss: Callable[[], Tensor], precision: str, optimizer: dict[str, Any]) -> None:
    network.train()
    adamw = torch.optim.AdamW(network.parameters(), fused=True, **optimizer)
    CONTENDERS[name] = Contender(network, loss, adamw, precision)


def hugging_face_loss(network: nn.Module, inputs: Tensor, options: dict[str, Any]) -> Tensor:
    """The model's own loss, at every position: `shift_labels` are the next tokens already."""
    return network(inputs, **options).loss


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def train(contender: str, steps: int) -> dict[str, Any]:
    """Some steps of one contender: the seconds, and the loss of each step."""
    begin = time.perf_counter()
    losses = [CONTENDERS[contender].step() for _ in range(steps)]
    seconds = time.perf_counter() - begin
    return {"seconds": seconds, "losses": [loss.item() for loss in losses]}


if __name__ == "__main__":
    serve({"build": build, "train": train})
