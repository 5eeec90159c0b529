"""Training speed beside JoeyNMT 2.3: the same 4+4×128 model on the very same batches of Multi30k, in one run.

    python benchmarks/translation_training.py --data-root data [--json]

JoeyNMT's own iterator makes the batches (without length buckets, so about half of them is padding) and hands over their
ids; both sides then take one step on each batch, in turns, while the other waits. Counted are unpadded target tokens,
eos included. A step is what each library's own trainer does between a batch that lies ready and updated weights.
Ours runs as the quality recipe says (dropout sites, precision, compile; padding is left out where our kernels can be
built), and once more with dropout wherever JoeyNMT has it: on the attention pattern and inside the feed-forward too (a
batch that is mostly padding is then taken in parts by length, with the same summed gradient).
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import itertools
import json
import os
import sys
import tempfile
import time
import types
from pathlib import Path
from typing import Any

import numpy
import torch
from machine import machine_limits
from peer import HERE, Peer, peer_python
from rounds import machine_lines, rate, ratio, spread, take_turns

from glassformer.errors import InputError
from glassformer.models.config import Config
from glassformer.models.encoder_decoder import EncoderDecoder
from glassformer.tasks.objectives import seq2seq
from glassformer.text.pairs import PairBatch
from glassformer.training.parallel import alone
from glassformer.training.precision import keep_large_buffers, pick_compile, pick_device, pick_precision
from glassformer.training.recipes import Recipe, read_recipe
from glassformer.training.trainer import Trainer, compiled

SHAPE = ("d_model", "n_heads", "d_ff", "n_encoder_layers", "n_decoder_layers")
IDS = ("vocab_size", "source_vocab_size", "pad_id", "bos_id", "eos_id")
RECIPE, PEER_SITES = "recipe's dropout sites", "JoeyNMT's dropout sites"


class Contender:
    """Our trainer on fixed batches: `train()` takes one step on each and returns the seconds."""

    def __init__(self, recipe: Recipe, config: Config, batches: list[PairBatch]) -> None:
        device = pick_device("cpu")
        self.precision = pick_precision(recipe.training.precision, device)
        self.compile = pick_compile(recipe.training.compile, device)
        self.batches = batches
        torch.manual_seed(recipe.training.seed)
        self.network = EncoderDecoder(config).train()
        objective = functools.partial(seq2seq, label_smoothing=recipe.training.label_smoothing)
        self.trainer = Trainer(
            alone(self.network, compiled(objective, self.compile)),
            batches,
            validation=None,
            run=types.SimpleNamespace(recipe=recipe),  # a step reads the recipe and touches no file
            write_model=lambda folder: None,
            display=None,
            precision=self.precision,
        )
        self.loss = float("nan")

    def train(self) -> float:
        cursor = iter(self.batches)
        begin = time.perf_counter()
        for _ in range(len(self.batches) // self.trainer.settings.accumulate):
            self.trainer._step(cursor)
        seconds = time.perf_counter() - begin
        sums = self.trainer.progress.window
        self.loss = sums["loss"] / sums["count"]
        self.trainer.progress.window = {}
        return seconds


def read_batches(path: str, pad_id: int) -> list[PairBatch]:
    """The peer's batches, in its own ids."""
    batches = []
    with numpy.load(path, allow_pickle=False) as arrays:
        for number in itertools.count():
            if f"source_{number}" not in arrays:
                return batches
            source = torch.from_numpy(arrays[f"source_{number}"])
            target = torch.from_numpy(arrays[f"target_{number}"])
            counts = int((source != pad_id).sum()), int((target[:, 1:] != pad_id).sum())
            batches.append(PairBatch(source, target, torch.arange(len(source)), *counts, pad_id))


def configs(recipe: Recipe, peer: dict[str, Any]) -> dict[str, Config]:
    """The recipe's choices in the peer's shape and vocabularies; then with dropout at the peer's sites."""
    own = dataclasses.replace(
        recipe.network_config(peer["vocab_size"]), **{name: peer[name] for name in (*SHAPE, *IDS)}, d_head=None
    )
    p = peer["dropout"]
    return {RECIPE: own, PEER_SITES: dataclasses.replace(own, dropout=p, attention_dropout=p, activation_dropout=p)}


def check(given: argparse.Namespace, recipe: Recipe) -> None:
    """`InputError` where the data are not there or the batches do not fill whole steps."""
    train = Path(given.data_root) / "multi30k" / "tok" / "train.lc.norm.tok.en"
    if not train.exists():
        raise InputError(f"There is no {train}; name the folder of multi30k/ with --data-root (docs/data.md).")
    if given.batches % recipe.training.accumulate:
        raise InputError(f"'--batches' must be a multiple of the recipe's accumulate, {recipe.training.accumulate}.")


def compare(given: argparse.Namespace) -> dict[str, Any]:
    """Everything that is measured, as plain values."""
    torch.set_num_threads(given.threads)
    keep_large_buffers()
    recipe = read_recipe(given.recipe, dict(item.split("=", 1) for item in given.set))
    check(given, recipe)
    python = peer_python("joeynmt", given.peer_python)
    data = str(Path(given.data_root).resolve())
    with tempfile.TemporaryDirectory() as folder, Peer("joeynmt", python, given.threads) as peer:
        ids = f"{folder}/batches.npz"
        about = peer.ask("start", data=data, batches=given.batches, threads=given.threads, output=ids)
        batches = read_batches(ids, about["pad_id"])
        assert [batch.n_target_tokens for batch in batches] == about["target_tokens"], "the batches differ"
        ours = {name: Contender(recipe, config, batches) for name, config in configs(recipe, about).items()}
        losses: dict[str, float] = {}

        def train_peer() -> float:
            answer = peer.ask("train")
            losses["JoeyNMT"] = answer["loss"]
            return float(answer["seconds"])

        competitors = {"JoeyNMT": train_peer, **{name: contender.train for name, contender in ours.items()}}
        print("warming up", file=sys.stderr, flush=True)
        take_turns(competitors, 1)
        seconds = take_turns(competitors, given.rounds)
    losses.update({name: contender.loss for name, contender in ours.items()})
    return report(given, about, recipe, ours, seconds, losses)


def report(
    given: argparse.Namespace,
    about: dict[str, Any],
    recipe: Recipe,
    ours: dict[str, Contender],
    seconds: dict[str, list[float]],
    losses: dict[str, float],
) -> dict[str, Any]:
    tokens = sum(about["target_tokens"])
    any_of_ours = next(iter(ours.values()))
    return {
        "machine": machine_limits(given.threads),
        "rounds": given.rounds,
        "batches": len(about["rows"]),
        "target_tokens_a_batch": tokens / len(about["rows"]),
        "rows_a_batch": sum(about["rows"]) / len(about["rows"]),
        "padding": {"source": about["source_padding"], "target": about["target_padding"]},
        "joeynmt": {key: value for key, value in about.items() if key not in ("rows", "target_tokens")},
        "ours": {
            "recipe": recipe.name,
            "precision": any_of_ours.precision,
            "compile": any_of_ours.compile,
            "accumulate": recipe.training.accumulate,
            "parameters": sum(parameter.numel() for parameter in any_of_ours.network.parameters()),
            "norm_first": any_of_ours.network.config.norm_first,
            "dropout": {name: dropout_sites(contender.network.config) for name, contender in ours.items()},
            "torch": torch.__version__,
        },
        "tokens_per_second": {name: rate(values, tokens).as_mapping() for name, values in seconds.items()},
        "ratio": {name: ratio(seconds[name], seconds["JoeyNMT"]).as_mapping() for name in ours},
        "loss_of_the_last_round": losses,
    }


def dropout_sites(config: Config) -> dict[str, float]:
    names = ("dropout", "attention_dropout", "activation_dropout")
    return {name: getattr(config, name) for name in names}


def lines(result: dict[str, Any]) -> list[str]:
    """The report for people."""
    peer, ours = result["joeynmt"], result["ours"]
    text = [
        *machine_lines(result["machine"]),
        f"batches: {result['batches']} of JoeyNMT's own, {result['rows_a_batch']:.0f} pairs and "
        f"{result['target_tokens_a_batch']:.0f} unpadded target tokens each on average; padding "
        f"{result['padding']['source']:.0%} of the source and {result['padding']['target']:.0%} of the target",
        f"JoeyNMT: {peer['parameters']:,} parameters, vocabularies {peer['source_vocab_size']:,} and "
        f"{peer['vocab_size']:,}, encoder {peer['encoder_norm']}-norm, decoder {peer['decoder_norm']}-norm, "
        f"dropout {peer['dropout']} on sub-layers, pattern and feed-forward, fp32, torch {peer['torch']}",
        f"ours: recipe {ours['recipe']}, {ours['parameters']:,} parameters, "
        f"{'pre' if ours['norm_first'] else 'post'}-norm, {ours['precision']}, "
        f"{'compiled' if ours['compile'] else 'not compiled'}, torch {ours['torch']}",
        f"median (lowest … highest) of {result['rounds']} rounds, unpadded target tokens a second:",
    ]
    for name, value in result["tokens_per_second"].items():
        loss = result["loss_of_the_last_round"][name]
        text.append(f"  {name:<24} {spread(value, 0):<28} loss a token, last round: {loss:.3f}")
    text.append("ratio to JoeyNMT, round by round:")
    for name, value in result["ratio"].items():
        sites = ", ".join(f"{site} {p}" for site, p in ours["dropout"][name].items())
        text.append(f"  {name:<24} {spread(value, 2):<28} {sites}")
    return text


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", default=os.environ.get("GLASSFORMER_DATA", "data"), help="folder of multi30k/")
    parser.add_argument("--recipe", default=str(HERE.parent / "recipes" / "multi30k-en-de-tok.toml"))
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a recipe's key, changed")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batches", type=int, default=8)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--peer-python", help="one that has JoeyNMT; else .venv-peers/joeynmt is made")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def main() -> None:
    given = arguments()
    try:
        result = compare(given)
    except InputError as error:
        sys.exit(f"error: {error}")
    print(json.dumps(result, indent=2) if given.json else "\n".join(lines(result)))


if __name__ == "__main__":
    main()
