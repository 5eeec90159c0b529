"""nanoGPT's setting for a CPU on the characters of tiny-shakespeare, written anew from its description; torch alone.

    python benchmarks/peers/nanogpt.py --data DATA/tinyshakespeare/input.txt

What its README runs: train.py config/train_shakespeare_char.py --device=cpu --compile=False --eval_iters=20
--log_interval=1 --block_size=64 --batch_size=12 --n_layer=4 --n_head=4 --n_embd=128 --max_iters=2000
--lr_decay_iters=2000 --dropout=0.0, and its validation loss is given as 1.88. The rest is that configuration's:
learning rate 1e-3 after 100 steps, cosine to 1e-4, AdamW with betas 0.9 and 0.99, weight decay 0.1 on matrices,
gradients clipped to 1, an estimate of both losses by 20 random batches each every 250 steps. fp32, eager, no biases,
GELU, one matrix for embedding and head.

Prints one JSON object. `seconds` runs from the built model to the end of training, its estimates included; reading the
data, importing torch and checkpoints (none are written) are left out, to the peer's advantage. `valid_loss` is its own
last estimate; `whole_valid_loss`, measured after the clock has stopped, is over all of the last 10 %, in windows of the
same context side by side, so that each character but the first is scored once.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Attention(nn.Module):
    """Causal self-attention; queries, keys and values come from one product."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_all = nn.Linear(width, 3 * width, bias=False)
        self.to_residual = nn.Linear(width, width, bias=False)

    def forward(self, states: Tensor) -> Tensor:
        rows, length, width = states.shape
        parts = self.to_all(states).split(width, dim=2)
        query, key, value = (part.view(rows, length, self.heads, -1).transpose(1, 2) for part in parts)
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        return self.to_residual(mixed.transpose(1, 2).reshape(rows, length, width))


class FeedForward(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.up = nn.Linear(width, 4 * width, bias=False)
        self.to_residual = nn.Linear(4 * width, width, bias=False)

    def forward(self, states: Tensor) -> Tensor:
        return self.to_residual(F.gelu(self.up(states)))


class Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm_1, self.norm_2 = nn.LayerNorm(width, bias=False), nn.LayerNorm(width, bias=False)
        self.attention, self.feed_forward = Attention(width, heads), FeedForward(width)

    def forward(self, states: Tensor) -> Tensor:
        states = states + self.attention(self.norm_1(states))
        return states + self.feed_forward(self.norm_2(states))


class GPT(nn.Module):
    """Pre-norm GPT. `forward(ids, target)` gives the mean cross-entropy over all positions."""

    def __init__(self, vocabulary: int, layers: int, heads: int, width: int, context: int) -> None:
        super().__init__()
        self.token, self.position = nn.Embedding(vocabulary, width), nn.Embedding(context, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width, bias=False)
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                into_residual = name.endswith("to_residual.weight")
                nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * layers) if into_residual else 0.02)

    def forward(self, ids: Tensor, target: Tensor) -> Tensor:
        states = self.token(ids) + self.position.weight[: ids.shape[1]]
        for block in self.blocks:
            states = block(states)
        logits = F.linear(self.norm(states), self.token.weight)
        return F.cross_entropy(logits.flatten(0, 1), target.flatten())


def read_characters(path: Path) -> tuple[Tensor, Tensor, int]:
    """Ids of the first 90 % and of the rest, and how many characters there are."""
    text = path.read_text(encoding="utf-8")
    characters = sorted(set(text))
    number = {character: index for index, character in enumerate(characters)}
    ids = torch.tensor([number[character] for character in text])
    cut = int(0.9 * len(ids))
    return ids[:cut], ids[cut:], len(characters)


def random_batch(ids: Tensor, rows: int, context: int) -> tuple[Tensor, Tensor]:
    """Windows from anywhere, and each one's next characters."""
    starts = torch.randint(len(ids) - context, (rows,)).tolist()
    inputs = torch.stack([ids[start : start + context] for start in starts])
    return inputs, torch.stack([ids[start + 1 : start + 1 + context] for start in starts])


def learning_rate(step: int, steps: int, warmup: int = 100, peak: float = 1e-3, low: float = 1e-4) -> float:
    """Linear to the peak, then half a cosine to `low` at the last step."""
    if step < warmup:
        return peak * (step + 1) / (warmup + 1)
    return low + 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup))) * (peak - low)


@torch.no_grad()
def estimate(network: GPT, ids: Tensor, given: argparse.Namespace) -> float:
    """The mean loss of some random batches."""
    network.eval()
    losses = [network(*random_batch(ids, given.batch, given.context)).item() for _ in range(given.eval_iters)]
    network.train()
    return sum(losses) / len(losses)


@torch.no_grad()
def whole_loss(network: GPT, ids: Tensor, context: int, rows: int = 64) -> tuple[float, int]:
    """Nats a character over all of `ids`, in windows side by side, the last one shorter; and how many characters."""
    network.eval()
    inputs, target = ids[:-1], ids[1:]
    full = len(inputs) // context * context
    windows = (part[:full].view(-1, context).split(rows) for part in (inputs, target))
    pairs = list(zip(*windows, strict=True))
    if full < len(inputs):
        pairs.append((inputs[None, full:], target[None, full:]))
    total = sum(network(part, wanted).item() * wanted.numel() for part, wanted in pairs)
    return total / len(inputs), len(inputs)


def optimizer_of(network: GPT) -> torch.optim.Optimizer:
    """AdamW as nanoGPT builds it on a CPU, where it asks for the fused kernel on a GPU only."""
    parameters = list(network.parameters())
    groups = [
        {"params": [parameter for parameter in parameters if parameter.ndim >= 2], "weight_decay": 0.1},
        {"params": [parameter for parameter in parameters if parameter.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.99))


def train(network: GPT, train_ids: Tensor, valid_ids: Tensor, given: argparse.Namespace) -> list[dict[str, Any]]:
    """All steps, with an estimate at step 0, every `eval_interval` steps and after the last; the estimates."""
    optimizer, estimates, start = optimizer_of(network), [], time.perf_counter()
    for step in range(given.steps + 1):
        if step % given.eval_interval == 0 or step == given.steps:
            found = {name: estimate(network, ids, given) for name, ids in (("train", train_ids), ("valid", valid_ids))}
            estimates.append({"step": step, **found, "seconds": time.perf_counter() - start})
            print(f"step {step}: train {found['train']:.4f}, valid {found['valid']:.4f}", file=sys.stderr, flush=True)
        if step == given.steps:
            return estimates
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, given.steps)
        loss = network(*random_batch(train_ids, given.batch, given.context))
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        loss.item()  # --log_interval=1 reads it at every step
    return estimates


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a text file")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--context", type=int, default=64)
    parser.add_argument("--batch", type=int, default=12)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--eval-interval", type=int, default=250)
    parser.add_argument("--eval-iters", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1337)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    return parser.parse_args()


def main() -> None:
    given = arguments()
    torch.set_num_threads(given.threads)
    torch.manual_seed(given.seed)
    train_ids, valid_ids, vocabulary = read_characters(given.data)
    network = GPT(vocabulary, given.layers, given.heads, given.width, given.context)
    estimates = train(network, train_ids, valid_ids, given)
    loss, count = whole_loss(network, valid_ids, given.context)
    result = {
        "seconds": estimates[-1]["seconds"],
        "valid_loss": estimates[-1]["valid"],
        "whole_valid_loss": loss,
        "whole_valid_characters": count,
        "estimates": estimates,
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "settings": {key: value for key, value in vars(given).items() if key != "data"},
        "torch": torch.__version__,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
