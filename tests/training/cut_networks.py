"""Run by test_tensor_parallel.py and test_context_parallel.py: networks that two processes run together.

Usage: cut_networks.py HOW, "tensor" or "context". Two forked processes each make the network of every kind, whole and
cut, and run the same batch on both. Prints, as JSON, how far the cut one's loss (`train` and `evaluate`) and its
gradients lie from the whole one's, relative to the largest, the larger of both processes; and the largest share of a
block's matrix that a process has.
"""

from __future__ import annotations

import copy
import json
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.tensor
from parallel_runs import free_port
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh

from glassformer.models.config import Banded, Config, Learned, MaskedLM, Relative, Rotary, Sinusoidal
from glassformer.models.families import network_class
from glassformer.tasks.objectives import IGNORE, Loss, causal_lm, masked_lm, seq2seq
from glassformer.text.examples import MaskedBatch, TextBatch
from glassformer.training.parallel.context import across, own_targets
from glassformer.training.parallel.tensor import tensor_parallel
from glassformer.training.recomputing import recompute_blocks

DECODER = Config(
    vocab_size=37,
    d_model=24,
    n_heads=4,
    d_head=8,
    d_ff=40,
    n_encoder_layers=0,
    n_decoder_layers=2,
    max_length=90,
    positions=Learned(),
    norm_first=True,
    activation="gelu",
    dropout=0.0,
)
LLAMA = replace(DECODER, positions=Rotary(), n_kv_heads=2, norm="rms", gated=True, bias=False, tie_head=False)
BERT = replace(DECODER, n_encoder_layers=2, n_decoder_layers=0, norm_first=False, head=MaskedLM(), head_bias=True)
BOTH = replace(DECODER, n_encoder_layers=2, positions=Sinusoidal(), norm_first=False, activation="relu")
DECODERS = {
    "learned": DECODER,
    "sines": replace(DECODER, positions=Sinusoidal(), norm_first=False),
    "llama": LLAMA,
    "relative": replace(DECODER, positions=Relative()),
    "banded": replace(DECODER, attention=Banded(5)),
    "banded-llama": replace(LLAMA, attention=Banded(5, every=1)),
}
T5 = replace(BOTH, positions=Relative(), norm="rms", bias=False, scale_scores=False, scale_head=True, norm_first=True)
KINDS = {**DECODERS, "bert": BERT, "encoder-decoder": BOTH, "t5": T5}


class Pair:
    """Sources and targets, two of each."""

    source = torch.tensor([[5, 9, 8, 2], [7, 2, 0, 0]])
    target = torch.tensor([[1, 8, 9, 5, 2], [1, 7, 2, 0, 0]])


def texts(length: int, packed: bool, full: bool) -> TextBatch:
    """Three rows of ids, of several documents where `packed`; where not `full`, the first half predicts nothing."""
    ids = torch.randint(3, 37, (3, length))
    target = torch.randint(3, 37, (3, length))
    if not full:
        target[:, : length // 2] = IGNORE
    documents = (torch.rand(3, length) < 0.2).cumsum(1) if packed else None
    return TextBatch(ids, target, documents, 3 * length, full)


Case = tuple[str, nn.Module, nn.Module, Callable[[Any], Loss], Callable[[Any], Loss]]


def tensor_cases(mesh: Any) -> Iterator[Case]:
    """Name, network, the same cut, and what both are run on."""
    ids = torch.randint(3, 37, (2, 11))
    batches: dict[str, Any] = {
        "bert": (masked_lm, MaskedBatch(ids, torch.tensor([1, 4, 15]), torch.tensor([5, 6, 7]))),
        "encoder-decoder": (seq2seq, Pair),
        "t5": (seq2seq, Pair),
    }
    for name, config in KINDS.items():
        objective, batch = batches.get(name, (causal_lm, texts(70, packed=True, full=True)))
        network = drawn(config)
        cut = copy.deepcopy(network)
        tensor_parallel(cut, mesh)
        run = lambda network, objective=objective, batch=batch: objective(network, batch)  # noqa: E731
        yield name, network, cut, run, run


def context_cases(mesh: Any) -> Iterator[Case]:
    """See `tensor_cases`: the networks are the same, and each process predicts at its own positions."""
    cut = across(causal_lm, mesh)
    batches = {
        "even": texts(16, packed=False, full=True),
        "odd": texts(75, packed=False, full=True),
        "packed": texts(75, packed=True, full=True),
        "prompt": texts(9, packed=False, full=False),
        "short": texts(1, packed=False, full=True),
    }
    for name, config in DECODERS.items():
        for kind, batch in batches.items():
            network = drawn(config)
            if kind == "odd":
                recompute_blocks(network)
            own = own_targets(batch, mesh.get_local_rank(), mesh.size())
            whole = lambda network, batch=batch: causal_lm(network, batch)  # noqa: E731
            yield f"{name}, {kind}", network, network, whole, lambda network, own=own: cut(network, own)


def drawn(config: Config) -> Any:
    """A network of that kind with biases and tables that are no zeros."""
    network: Any = network_class(config)(config)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return network


def gradients(network: nn.Module, loss: Loss, summed: bool) -> list[Tensor]:
    """Of the loss, whole; summed over the processes where each has a part."""
    network.zero_grad()
    loss.total.backward()
    found = [getattr(p.grad, "full_tensor", lambda p=p: p.grad)().clone() for p in network.parameters()]
    if summed:
        for gradient in found:
            dist.all_reduce(gradient)
    return found


def compared(mesh: Any, how: str) -> dict[str, dict[str, float]]:
    """What this script prints."""
    result = {}
    summed = how == "context"
    for name, network, cut, on_whole, on_cut in (context_cases if summed else tensor_cases)(mesh):
        losses = {}
        for mode in (False, True):
            network.train(mode), cut.train(mode)
            with torch.set_grad_enabled(mode):
                one, other = on_whole(network), on_cut(cut)
            sums = torch.stack([other.total.detach().double(), torch.tensor(float(other.count))])
            if summed:
                dist.all_reduce(sums)
            assert int(sums[1]) == one.count, (name, sums, one.count)
            losses["train" if mode else "evaluate"] = abs(float(sums[0] / one.total.detach()) - 1)
        found = gradients(cut, other, summed)
        wanted = gradients(network, one, False)
        least = 0.01 * max(float(y.abs().max()) for y in wanted)  # that of keys' biases is zero but for rounding
        largest = max(
            float((x - y).abs().max() / y.abs().max().clamp_min(least)) for x, y in zip(found, wanted, strict=True)
        )
        result[name] = {**losses, "gradients": largest, "share": largest_share(cut)}
    return result


def largest_share(network: nn.Module) -> float:
    """Of the numbers of a block's matrices, how many this process has at most."""
    matrices = [p for name, p in network.named_parameters() if p.ndim == 2 and ".blocks." in name]
    return max(getattr(p, "to_local", lambda p=p: p)().numel() / p.numel() for p in matrices)


def work(rank: int, port: int, how: str) -> None:
    """One process; the first one prints the worse of both."""
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    dist.init_process_group("gloo", rank=rank, world_size=2)
    torch.set_num_threads(1)
    torch.manual_seed(3)
    found = compared(init_device_mesh("cpu", (2,), mesh_dim_names=(how,)), how)
    table = torch.tensor([list(row.values()) for row in found.values()])
    dist.all_reduce(table, op=dist.ReduceOp.MAX)
    if rank == 0:
        worst = zip(found.items(), table.tolist(), strict=True)
        print(json.dumps({name: dict(zip(row, numbers, strict=True)) for (name, row), numbers in worst}))
    dist.destroy_process_group()


def main(how: str) -> int:
    """The exit status: 0 where both processes end well."""
    port, pids = free_port(), []
    for rank in range(2):
        pid = os.fork()
        if pid == 0:
            try:
                work(rank, port, how)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            sys.stdout.flush()
            os._exit(0)
        pids.append(pid)
    return max(abs(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])) for pid in pids)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
