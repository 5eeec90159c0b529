"""Training tokens a second of a GPT beside Hugging Face's GPT-2 and a bare torch GPT, on one batch, in one run.

    python benchmarks/gpt_training.py [--json] [--rounds 5]
    python benchmarks/gpt_training.py --gpt3            # GPT-3 Small's recipe scaled down, banded as in the paper

The GPT: 6 layers of width 384, 6 heads, 8,192 words, 16 texts of 256 tokens. A step is forward, backward, clipping to a
norm of 1 and fused AdamW. Ours goes through the code that the trainer calls, eager and compiled; Hugging Face's starts
from the same weights, eager, in fp32 (its default) and under bf16 autocast; the bare GPT (peers/nanogpt.py in the same
shape, without biases) is there for information, with fused AdamW and compiled as well. No dropout anywhere. All take
turns, and each works while the others wait.

With `--gpt3` the recipe of GPT-3 Small is scaled down: a context of 1,024, 4 texts a step, and in ours every second
layer is locally banded, 256 wide (Brown et al. 2020, section 2.1). Stock GPT-2 cannot express that: Hugging Face's has
the same parameters and dense layers alone, and so another loss. Ours with dense layers runs beside them.

Of the machine's bf16 limit (the fastest square product, measured in every round) a contender uses

    tokens a second × FLOPs a token / limit,    FLOPs a token = 6 N + 12 L D T,

with N the parameters (the tied head once), L layers, D the width, T the context: forward and backward of every weight,
and of attention over whole rows. Without embeddings, N leaves out the tables of tokens and positions, and so the head's
product. The share is unknown where the processor has no bf16 instructions: nothing of what it emulates is a limit.
"""

from __future__ import annotations

import argparse
import copy
import functools
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from goals import Goal, best, compared, row_line
from machine import gflops, machine_limits
from peer import Peer, peer_python
from rounds import Spread, machine_lines, rate, spread, take_turns

from glassformer.checkpoints.files import write_json
from glassformer.checkpoints.maps import MAPS
from glassformer.checkpoints.maps.apply import to_theirs
from glassformer.checkpoints.tensors import write_tensors
from glassformer.models.config import Banded, Config, Dense, Learned
from glassformer.models.decoder import Decoder
from glassformer.tasks.objectives import causal_lm
from glassformer.text.examples import TextBatch
from glassformer.training.gradients import accumulate, clip_gradients
from glassformer.training.optimizers import build_optimizer, set_learning_rate
from glassformer.training.precision import cpu_has_bf16, keep_large_buffers
from glassformer.training.recipes import Training
from glassformer.training.trainer import compiled

HF_BF16, HF_FP32, SHARE = Goal(1.15, 1.35), Goal(2.3, 2.8), Goal(0.67, 0.78)
HF_GPT3 = Goal(1.15, 1.4)
LIMIT = "bf16 limit, 1 TFLOP"
ADAMW = {"lr": 1e-4, "betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 0.1}
Seconds = dict[str, list[float]]


class Ours:
    """Our network, trained by what the trainer calls in a step: `train(n)` returns the seconds of `n` steps."""

    def __init__(self, network: Decoder, batch: TextBatch, precision: str, compile: bool) -> None:
        self.network, self.batch, self.precision = copy.deepcopy(network).train(), batch, precision
        self.settings = Training(
            optimizer="adamw",
            learning_rate=ADAMW["lr"],
            betas=tuple(ADAMW["betas"]),
            eps=ADAMW["eps"],
            weight_decay=ADAMW["weight_decay"],
            clip=1.0,
        )
        self.optimizer = build_optimizer(self.network, self.settings)
        self.objective = compiled(causal_lm, compile)
        self.losses: list[float] = []

    def train(self, steps: int) -> float:
        begin = time.perf_counter()
        for _ in range(steps):
            set_learning_rate(self.optimizer, self.settings.learning_rate)
            self.optimizer.zero_grad(set_to_none=True)
            sums = accumulate(
                self.network,
                self.objective,
                [self.batch],
                seed=self.settings.seed,
                step=len(self.losses) + 1,
                precision=self.precision,
            )
            clip_gradients(self.network, self.settings.clip)
            self.optimizer.step()
            self.losses.append(sums["loss"] / sums["count"])
        return time.perf_counter() - begin


def config(given: argparse.Namespace, band: int = 0) -> Config:
    """GPT-2's choices in the shape that was asked for; with a `band`, every second layer looks no further back."""
    return Config(
        attention=Banded(band, 2) if band else Dense(),
        vocab_size=given.vocabulary,
        d_model=given.width,
        n_heads=given.heads,
        d_ff=4 * given.width,
        n_encoder_layers=0,
        n_decoder_layers=given.layers,
        positions=Learned(),
        max_length=given.context,
        norm_first=True,
        activation="gelu_tanh",
        dropout=0.0,
        scale_embedding=False,
        init_std=0.02,
    )


def write_gpt2(network: Decoder, folder: Path) -> None:
    """The network as a folder of Hugging Face, without a tokenizer."""
    gpt2 = MAPS["gpt2"]
    settings = {key: value for key, value in gpt2.write_config(network.config).items() if value is not None}
    write_json(folder / "config.json", {"model_type": gpt2.model_type, **settings})
    tensors = to_theirs(network, gpt2.rules(network.config), None)
    write_tensors(folder / "model.safetensors", tensors, metadata={"format": "pt"})


def contenders(given: argparse.Namespace, network: Decoder, batch: TextBatch) -> dict[str, Ours]:
    """Ours in each precision, eager and compiled, all from the same weights; and banded, where that is asked for."""
    networks = {"ours": network}
    if given.banded:
        networks["ours banded"] = Decoder(config(given, given.banded))
        networks["ours banded"].load_state_dict(network.state_dict())
    return {
        f"{name} {precision}{' compiled' if compile else ''}": Ours(one, batch, precision, compile)
        for name, one in networks.items()
        for precision in given.precisions
        for compile in ((False,) if given.no_compile else (False, True))
    }


def compare(given: argparse.Namespace) -> dict[str, Any]:
    """Everything that is measured, as plain values."""
    torch.set_num_threads(given.threads)
    keep_large_buffers()
    torch.manual_seed(0)
    ids = torch.randint(given.vocabulary, (given.batch, given.context + 1))
    batch = TextBatch(ids[:, :-1].contiguous(), ids[:, 1:].contiguous(), None, given.batch * given.context, full=True)
    network = Decoder(config(given))
    ours = contenders(given, network, batch)
    python = peer_python("transformers", given.peer_python)
    first: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder, Peer("gpt_training", python, given.threads) as peer:
        write_gpt2(network, Path(folder))
        about = peer.ask("build", folder=folder, ids=ids.tolist(), **peers_options(given))

        def train_peer(name: str) -> float:
            answer = peer.ask("train", contender=name, steps=given.steps)
            first.setdefault(name, answer["losses"][0])
            return float(answer["seconds"])

        competitors: dict[str, Callable[[], float]] = {
            **{name: functools.partial(train_peer, name) for name in about["names"]},
            **{name: functools.partial(one.train, given.steps) for name, one in ours.items()},
        }
        if cpu_has_bf16():
            competitors[LIMIT] = lambda: 1000 / gflops(torch.bfloat16)
        print("warming up", file=sys.stderr, flush=True)
        take_turns(competitors, 1)
        seconds = take_turns(competitors, given.rounds)
    first.update({name: one.losses[0] for name, one in ours.items()})
    counts = {**about["parameters"], **dict.fromkeys(ours, sum(part.numel() for part in network.parameters()))}
    return report(given, about, counts, first, seconds)


def peers_options(given: argparse.Namespace) -> dict[str, Any]:
    return {
        "precisions": given.precisions,
        "bare": None if given.no_bare else bare_shape(given),
        "compile": not given.no_compile,
        "optimizer": ADAMW,
        "threads": given.threads,
    }


def bare_shape(given: argparse.Namespace) -> dict[str, int]:
    names = ("vocabulary", "layers", "heads", "width", "context")
    return {name: getattr(given, name) for name in names}


def report(
    given: argparse.Namespace,
    about: Mapping[str, Any],
    counts: Mapping[str, int],
    first: Mapping[str, float],
    seconds: Seconds,
) -> dict[str, Any]:
    limit = seconds.pop(LIMIT, None)
    tokens = given.steps * given.batch * given.context
    tables = (given.vocabulary + given.context) * given.width
    rows = rows_of(seconds)
    return {
        "shape": {**bare_shape(given), "batch": given.batch, "banded": given.banded},
        "rounds": given.rounds,
        "steps_a_round": given.steps,
        "parameters": dict(counts),
        "peers": {key: about[key] for key in ("transformers", "torch")},
        "first_loss": dict(first),
        "flops_per_token": {name: flops_per_token(count, given) for name, count in counts.items()},
        "tokens_per_second": {name: rate(values, tokens).as_mapping() for name, values in seconds.items()},
        "bf16_limit_gflops": None if limit is None else Spread.of([1000 / value for value in limit]).as_mapping(),
        "share_of_bf16_limit": {
            name: {
                "all": share(seconds[name], limit, tokens * flops_per_token(count, given)),
                "without_embeddings": share(seconds[name], limit, tokens * flops_per_token(count - tables, given)),
            }
            for name, count in counts.items()
            if "bf16" in name
        },
        "rows": rows,
        "machine": machine_limits(given.threads),
    }


def flops_per_token(parameters: int, shape: Any) -> int:
    """Forward and backward: 6 N + 12 L D T. `shape` has layers, width and context."""
    return 6 * parameters + 12 * shape.layers * shape.width * shape.context


def share(seconds: Sequence[float], limit: Sequence[float] | None, flops: float) -> dict[str, Any] | None:
    """Which part of the machine's limit these rounds used, each against the limit of its own round; None: unknown.

    `seconds` for `flops`, `limit` in seconds for a TFLOP.
    """
    if limit is None:
        return None
    parts = [flops / 1e12 * fastest / taken for taken, fastest in zip(seconds, limit, strict=True)]
    return SHARE.judged(Spread.of(parts).as_mapping())


def rows_of(seconds: Seconds) -> list[dict[str, Any]]:
    """The table of ratios: our best against Hugging Face, then for information."""
    banded = [name for name in seconds if name.startswith("ours banded")]
    mine = best(seconds, banded or [name for name in seconds if name.startswith("ours")])
    rows = []
    for theirs, goal in (("HF bf16", HF_GPT3 if banded else HF_BF16), ("HF fp32", None if banded else HF_FP32)):
        if theirs in seconds:
            rows.append(compared(seconds, mine, theirs, goal))
    pairs = [("ours fp32", "HF fp32"), ("ours bf16", "HF bf16"), ("ours bf16 compiled", "HF bf16")]
    pairs += [(mine, name) for name in seconds if name.startswith("bare")]
    known = [(own, theirs) for own, theirs in pairs if own in seconds and theirs in seconds]
    done = {(row["ours"], row["theirs"]) for row in rows}
    return rows + [compared(seconds, *pair) for pair in known if pair not in done]


def lines(result: Mapping[str, Any]) -> list[str]:
    """The report for people."""
    shape, counts = result["shape"], result["parameters"]
    banded = f", banded: every second layer {shape['banded']} wide" if shape["banded"] else ""
    text = [
        *machine_lines(result["machine"]),
        f"GPT {shape['layers']}×{shape['width']}, {shape['heads']} heads, {shape['vocabulary']:,} words, "
        f"{shape['batch']} × {shape['context']} tokens a step{banded}; transformers {result['peers']['transformers']}, "
        f"torch {result['peers']['torch']}",
        f"median (lowest … highest) of {result['rounds']} rounds of {result['steps_a_round']} steps; tokens a second:",
    ]
    for name, value in result["tokens_per_second"].items():
        text.append(
            f"  {name:<20} {spread(value, 0):<28} {counts[name]:,} parameters, "
            f"loss of the first step {result['first_loss'][name]:.4f}"
        )
    text.append("ratios, round by round:")
    text += [row_line(row) for row in result["rows"]]
    limit = result["bf16_limit_gflops"]
    text.append(f"share of the bf16 limit, {'unknown' if limit is None else spread(limit, 0) + ' GFLOP/s'}:")
    for name, parts in result["share_of_bf16_limit"].items():
        text.append(f"  {name:<20} {share_text(parts)}  ({result['flops_per_token'][name] / 1e6:.1f} MFLOP a token)")
    return text


def share_text(parts: Mapping[str, Any]) -> str:
    """Both shares of a contender as text, with what the issue asks for."""
    whole, inner = parts["all"], parts["without_embeddings"]
    if whole is None:
        return "unknown"
    return (
        f"{whole['median']:.1%} ({whole['low']:.1%} … {whole['high']:.1%}), without embeddings {inner['median']:.1%}; "
        f"floor {whole['floor']:.0%}, goal {whole['goal']:.0%}: {whole['reached']}"
    )


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--heads", type=int, default=6)
    parser.add_argument("--vocabulary", type=int, default=8192)
    parser.add_argument("--context", type=int, default=256)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--banded", type=int, default=0, help="every second layer of ours so wide as well; 0: none")
    parser.add_argument("--gpt3", action="store_true", help="--context 1024 --batch 4 --banded 256 --no-bare")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=2, help="of each contender in a round")
    parser.add_argument("--precisions", nargs="+", choices=["fp32", "bf16"], default=["fp32", "bf16"])
    parser.add_argument("--no-bare", action="store_true", help="leave out the bare torch GPT")
    parser.add_argument("--no-compile", action="store_true", help="leave out what is compiled")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--peer-python", help="one that has transformers; else .venv-peers/transformers is made")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    if given.gpt3:
        given.context, given.batch, given.banded, given.no_bare = 1024, 4, 256, True
    return given


def main() -> None:
    given = arguments()
    result = compare(given)
    print(json.dumps(result, indent=2) if given.json else "\n".join(lines(result)))


if __name__ == "__main__":
    main()
