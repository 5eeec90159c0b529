"""Decoding speed beside CTranslate2 4.8 (fp32 and int8) on equal shapes and equal weights, in one run.

    python benchmarks/translation_decoding.py [--json] [--sizes base tiny] [--beams 4 1]

64 sources of 20 tokens are decoded to exactly 24 target tokens with beam 4 and greedily, by random Transformers of base
size (6+6×512, 8,000 words) and tiny size (4+4×128, 9,700 words). Both sides have the same weights, so they must find
the same tokens: the share of sources where they do is printed beside the speed (a rounding error may turn a near tie).
Each side works while the other waits, in turns.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import functools
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import torch
from machine import machine_limits
from peer import Peer, peer_python
from rounds import machine_lines, rate, ratio, spread, take_turns

from glassformer.generation.decoding import beam_search
from glassformer.layers.int8 import int8
from glassformer.models.config import Config
from glassformer.models.encoder_decoder import EncoderDecoder
from glassformer.models.sizes import sizes
from glassformer.training.precision import cpu_has_bf16, keep_large_buffers

SIZES = {
    "base": dataclasses.replace(sizes["transformer-base"], vocab_size=8000, tie_head=False),
    "tiny": dataclasses.replace(sizes["transformer-tiny"], vocab_size=9700, tie_head=False),
}
ROWS, SOURCE_LENGTH, TARGET_LENGTH = 64, 20, 24
PEER_TYPES = {"CTranslate2 fp32": "float32", "CTranslate2 int8": "int8"}
SPECIAL_IDS = 4


def random_network(config: Config, seed: int) -> EncoderDecoder:
    """Random weights that write varied text, so that equal output means something.

    Fresh weights of a deep post-norm network drown the token in what all positions have in common, and repeat one word
    for ever: hence the damped sub-layers. Special tokens never become likely, as CTranslate2 would even write padding.
    """
    torch.manual_seed(seed)
    network = EncoderDecoder(config).eval().requires_grad_(False)
    for name, parameter in network.named_parameters():
        if name.endswith("bias"):
            parameter.normal_(std=0.02)
        elif name.endswith(("to_output.weight", "down.weight")):
            parameter.mul_(0.4)
        elif parameter.ndim == 1:
            parameter.normal_(mean=1.0, std=0.1)
    network.head.weight.normal_(std=config.d_model**-0.5)
    network.head.weight[:SPECIAL_IDS] = 0
    return network


def save_arrays(network: EncoderDecoder, source: torch.Tensor, path: Path) -> None:
    """Every parameter and the position vectors under our names (tied ones under each of theirs), and the sources."""
    arrays = {name: value.numpy() for name, value in network.state_dict().items()}
    for stack in ("encoder", "decoder"):
        arrays[f"{stack}.embedding.position"] = getattr(network, stack).embedding.position.numpy()
    numpy.savez(path, source=source.numpy(), **arrays)


class OurDecoder:
    """One of our contenders at one beam: `run()` decodes all sources and returns the seconds."""

    def __init__(self, network: EncoderDecoder, source: torch.Tensor, beam: int) -> None:
        self.network, self.source, self.beam = network, source, beam
        self.ids: list[list[int]] = []

    def run(self) -> float:
        begin = time.perf_counter()
        found = beam_search(
            self.network, self.source, beam=self.beam, max_length=TARGET_LENGTH, min_length=TARGET_LENGTH
        )
        seconds = time.perf_counter() - begin
        self.ids = [list(hypotheses[0].ids) for hypotheses in found]
        return seconds


def our_networks(network: EncoderDecoder) -> dict[str, EncoderDecoder]:
    """fp32 and int8, and bf16 where the processor multiplies it."""
    networks = {"ours fp32": network, "ours int8": int8(network)}
    if cpu_has_bf16():
        networks["ours bf16"] = copy.deepcopy(network).bfloat16()
    return networks


def compare_size(given: argparse.Namespace, peer: Peer, size: str, folder: Path) -> tuple[dict[str, Any], list[Any]]:
    """What the peer is, and a result for each beam."""
    config = SIZES[size]
    network = random_network(config, given.seed)
    source = torch.randint(SPECIAL_IDS, config.vocab_size, (ROWS, SOURCE_LENGTH))
    path = folder / f"{size}.npz"
    save_arrays(network, source, path)
    about = peer.ask(
        "build",
        size=size,
        weights=str(path),
        layers=config.n_encoder_layers,
        heads=config.n_heads,
        threads=given.threads,
        compute_types=list(PEER_TYPES.values()),
    )
    networks = our_networks(network)
    return about, [compare_beam(given, peer, size, networks, source, beam) for beam in given.beams]


def compare_beam(
    given: argparse.Namespace,
    peer: Peer,
    size: str,
    networks: dict[str, EncoderDecoder],
    source: torch.Tensor,
    beam: int,
) -> dict[str, Any]:
    ids: dict[str, list[list[int]]] = {}

    def run_peer(name: str) -> float:
        answer = peer.ask("translate", size=size, compute_type=PEER_TYPES[name], beam=beam, length=TARGET_LENGTH)
        ids[name] = answer["ids"]
        return float(answer["seconds"])

    ours = {name: OurDecoder(network, source, beam) for name, network in networks.items()}
    competitors: dict[str, Callable[[], float]] = {name: functools.partial(run_peer, name) for name in PEER_TYPES}
    competitors.update({name: decoder.run for name, decoder in ours.items()})
    print(f"{size}, beam {beam}: warming up", file=sys.stderr, flush=True)
    take_turns(competitors, 1)
    seconds = take_turns(competitors, given.rounds)
    ids.update({name: decoder.ids for name, decoder in ours.items()})
    for name, found in ids.items():
        assert all(len(row) == TARGET_LENGTH for row in found), f"{name} wrote other than {TARGET_LENGTH} tokens"
    reference, tokens = ids["CTranslate2 fp32"], ROWS * TARGET_LENGTH
    return {
        "size": size,
        "beam": beam,
        "tokens_per_second": {name: rate(values, tokens).as_mapping() for name, values in seconds.items()},
        "ratio": {name: {to: ratio(seconds[name], seconds[to]).as_mapping() for to in PEER_TYPES} for name in ours},
        "same_as_ctranslate2_fp32": {name: agreement(found, reference) for name, found in ids.items()},
        "different_words_written": len({token for row in reference for token in row}),
    }


def agreement(found: list[list[int]], reference: list[list[int]]) -> float:
    """Share of sources whose best hypothesis is the same, all tokens of it."""
    return sum(one == other for one, other in zip(found, reference, strict=True)) / len(reference)


def compare(given: argparse.Namespace) -> dict[str, Any]:
    """Everything that is measured, as plain values."""
    torch.set_num_threads(given.threads)
    keep_large_buffers()
    python = peer_python("ctranslate2", given.peer_python)
    results: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder, Peer("ctranslate2", python, given.threads) as peer:
        for size in given.sizes:
            about, measured = compare_size(given, peer, size, Path(folder))
            results += measured
    return {
        "machine": machine_limits(given.threads),
        "rounds": given.rounds,
        "sources": ROWS,
        "source_tokens": SOURCE_LENGTH,
        "target_tokens": TARGET_LENGTH,
        "ctranslate2": about,
        "torch": torch.__version__,
        "results": results,
    }


def lines(result: dict[str, Any]) -> list[str]:
    """The report for people."""
    text = [
        *machine_lines(result["machine"]),
        f"{result['sources']} sources of {result['source_tokens']} tokens, exactly {result['target_tokens']} target "
        f"tokens; CTranslate2 {result['ctranslate2']['ctranslate2']}, torch {result['torch']}; "
        f"median (lowest … highest) of {result['rounds']} rounds",
    ]
    for measured in result["results"]:
        config = SIZES[measured["size"]]
        text.append(
            f"{measured['size']} ({config.n_encoder_layers}+{config.n_decoder_layers}×{config.d_model}, "
            f"{config.vocab_size:,} words, {measured['different_words_written']} of them written), "
            f"beam {measured['beam']}, target tokens a second:"
        )
        for name, value in measured["tokens_per_second"].items():
            same = measured["same_as_ctranslate2_fp32"][name]
            text.append(f"  {name:<18} {spread(value, 0):<28} same tokens as CTranslate2 fp32: {same:.0%} of sources")
        for name, ratios in measured["ratio"].items():
            for other, value in ratios.items():
                text.append(f"  {name} / {other}: {spread(value, 2)}")
    return text


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=list(SIZES), default=list(SIZES))
    parser.add_argument("--beams", nargs="+", type=int, default=[4, 1])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--peer-python", help="one that has CTranslate2; else .venv-peers/ctranslate2 is made")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def main() -> None:
    given = arguments()
    result = compare(given)
    print(json.dumps(result, indent=2) if given.json else "\n".join(lines(result)))


if __name__ == "__main__":
    main()
