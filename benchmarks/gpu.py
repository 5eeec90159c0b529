"""Training tokens a second of GPT-2 small on one GPU, beside Hugging Face's, in bf16; needs a GPU and transformers.

    python benchmarks/gpu.py [--json] [--rounds 5] [--banded 256] [--eager]

12 layers of width 768, 50,257 words, rows of 1,024 tokens. A step is forward, backward, clipping to a norm of 1 and
fused AdamW, under bf16 autocast, without dropout. Ours goes through the code that the trainer calls, eager and
compiled; Hugging Face's GPT-2 starts from fresh weights, eager with its default attention, and compiled. All take
turns. The share of the GPU's limit is tokens a second × (6 N + 12 L D T) over the fastest square bf16 product that
was measured in the same run. With `--banded`, every second layer of ours looks no further back (FlexAttention).
`--eager` leaves the compiled ones out, whose compiling takes minutes.
"""

from __future__ import annotations

import argparse
import functools
import json
import time
from collections.abc import Callable
from typing import Any

import torch
from goals import compared, row_line
from gpt_training import ADAMW, Ours, config, flops_per_token
from rounds import rate, spread, take_turns

from glassformer.models.decoder import Decoder
from glassformer.text.examples import TextBatch


class Theirs:
    """Hugging Face's GPT-2 of the same shape, trained in the same way."""

    def __init__(self, given: argparse.Namespace, ids: torch.Tensor, compile: bool) -> None:
        from transformers import GPT2Config, GPT2LMHeadModel

        shape = {"n_layer": given.layers, "n_embd": given.width, "n_head": given.heads, "n_positions": given.context}
        rates = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
        self.network = GPT2LMHeadModel(GPT2Config(vocab_size=given.vocabulary, **shape, **rates)).cuda().train()
        self.forward: Any = torch.compile(self.network) if compile else self.network
        rate, betas = ADAMW["lr"], tuple(ADAMW["betas"])  # type: ignore[arg-type]
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), rate, betas, ADAMW["eps"], ADAMW["weight_decay"], fused=True
        )
        self.ids = ids

    def train(self, steps: int) -> float:
        begin = time.perf_counter()
        for _ in range(steps):
            self.optimizer.zero_grad(set_to_none=True)
            with torch.autocast("cuda", torch.bfloat16):
                loss = self.forward(self.ids, labels=self.ids).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
            self.optimizer.step()
        torch.cuda.synchronize()
        return time.perf_counter() - begin


class OursOnGpu(Ours):
    """Ours; its seconds end when the GPU has done the work."""

    def train(self, steps: int) -> float:
        begin = time.perf_counter()
        super().train(steps)
        torch.cuda.synchronize()
        return time.perf_counter() - begin


def limit(size: int = 8192, times: int = 20) -> float:
    """bf16 FLOPs a second of a square product of random numbers."""
    a, b = (torch.randn(size, size, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    a @ b
    torch.cuda.synchronize()
    begin = time.perf_counter()
    for _ in range(times):
        a @ b
    torch.cuda.synchronize()
    return 2 * size**3 * times / (time.perf_counter() - begin)


def compare(given: argparse.Namespace) -> dict[str, Any]:
    torch.manual_seed(0)
    torch.set_float32_matmul_precision("high")
    ids = torch.randint(given.vocabulary, (given.batch, given.context + 1), device="cuda")
    batch = TextBatch(ids[:, :-1].contiguous(), ids[:, 1:].contiguous(), None, given.batch * given.context, full=True)
    contenders: dict[str, Any] = {}
    for compile in (False,) if given.eager else (False, True):
        how = " compiled" if compile else ""
        contenders[f"ours{how}"] = OursOnGpu(Decoder(config(given)).cuda(), batch, "bf16", compile)
        if given.banded:
            banded = Decoder(config(given, given.banded)).cuda()
            contenders[f"ours banded{how}"] = OursOnGpu(banded, batch, "bf16", compile)
        contenders[f"HF{how}"] = Theirs(given, batch.ids, compile)
    runs: dict[str, Callable[[], float]] = {
        name: functools.partial(one.train, given.steps) for name, one in contenders.items()
    }
    take_turns(runs, 1)
    seconds = take_turns(runs, given.rounds)
    parameters = sum(part.numel() for part in contenders["ours"].network.parameters())
    tokens, most = given.steps * given.batch * given.context, limit()
    flops = flops_per_token(parameters, given)
    rates = {name: rate(values, tokens).as_mapping() for name, values in seconds.items()}
    pairs = (
        [("ours", "HF")] if given.eager else [("ours", "HF"), ("ours compiled", "HF compiled"), ("ours compiled", "HF")]
    )
    return {
        "gpu": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "rounds": given.rounds,
        "parameters": parameters,
        "limit_tflops": most / 1e12,
        "tokens_per_second": rates,
        "share_of_limit": {name: value["median"] * flops / most for name, value in rates.items()},
        "peak_gb": torch.cuda.max_memory_allocated() / 1e9,
        "rows": [compared(seconds, *pair) for pair in pairs],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options = [("layers", 12), ("width", 768), ("heads", 12), ("vocabulary", 50257), ("context", 1024), ("batch", 16)]
    for name, value in [*options, ("banded", 0), ("rounds", 5), ("steps", 5)]:
        parser.add_argument(f"--{name}", type=int, default=value)
    for name in ("eager", "json"):
        parser.add_argument(f"--{name}", action="store_true")
    given = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("error: this benchmark needs a GPU; benchmarks/gpt_training.py measures on the CPU.")
    result = compare(given)
    if given.json:
        print(json.dumps(result, indent=2))
        return
    print(f"{result['gpu']}, torch {result['torch']}, {result['limit_tflops']:.0f} TFLOP/s in bf16 products")
    for name, value in result["tokens_per_second"].items():
        print(f"  {name:<20} {spread(value, 0)} tokens a second, {result['share_of_limit'][name]:.1%} of the limit")
    print("\n".join(row_line(row) for row in result["rows"]))


if __name__ == "__main__":
    main()
