"""How the work falls into processes: what a layout must hold to, and what becomes of it on another number of them."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from torch import nn

from glassformer.errors import InputError
from glassformer.layers.block import Block
from glassformer.layers.linear import Linear
from glassformer.layers.low_rank import has_low_rank
from glassformer.models.decoder import Decoder
from glassformer.models.encoder import Encoder
from glassformer.training.parallel.stages import check_stages
from glassformer.training.parallel.tensor import dense_layers
from glassformer.training.ranks import Ranks
from glassformer.training.recipes import Parallel, Recipe


def check_layout(recipe: Recipe, size: int) -> None:
    """`InputError` where the recipe's layout does not fit `size` processes, or asks for what is not there."""
    wanted = recipe.parallel
    if wanted.processes != size:
        asked = f"they ask for {wanted.processes}" + (f" ({wanted})" if str(wanted) else "")
        here = f"there are {size}" if size > 1 else "there is one"
        start = f"start it as torchrun --nproc-per-node {wanted.processes} -m glassformer train …"
        start = start if wanted.processes > 1 else "start it without torchrun"
        what = start if size == 1 else f"set --parallel.data {size}, or {start}"
        raise InputError(f"The sizes of [parallel] must multiply to the number of processes: {asked}, {here}; {what}.")
    if wanted.pipeline > 1 and wanted.context > 1:
        raise InputError(
            "'parallel.context' and 'parallel.pipeline' do not go together: use 'parallel.tensor' with one."
        )
    if recipe.training.optimizer == "muon":
        if wanted.pipeline > 1 and wanted.data > 1:  # where a stage is shared out
            raise InputError("Muon needs whole matrices: use 'parallel.data' or 'parallel.pipeline' alone, or adamw.")
        for name in ("shard", "tensor"):
            if getattr(wanted, name) > 1:
                raise InputError(
                    f"Muon needs whole matrices: use 'parallel.data' in place of 'parallel.{name}', or adamw."
                )


def check_network(network: nn.Module, parallel: Parallel) -> None:
    """`InputError` where a network cannot be cut as the layout wants it."""
    if parallel.pipeline > 1:
        check_stages(network, parallel.pipeline)
    if parallel.tensor > 1:
        _check_tensor(network, parallel.tensor)
    if parallel.context > 1 and not isinstance(network, Decoder):
        raise InputError(
            "'parallel.context' deals out the positions of decoders such as GPT and Llama, and this network is "
            f"{'an encoder' if isinstance(network, Encoder) else 'of another family'}: use 'parallel.data'."
        )


def _check_tensor(network: nn.Module, size: int) -> None:
    layers = [layer for block in network.modules() if isinstance(block, Block) for _, layer in dense_layers(block)]
    if not layers:
        raise InputError(
            "'parallel.tensor' cuts the blocks of Transformers, and this network has none: use 'parallel.data'."
        )
    if has_low_rank(network):
        raise InputError("'parallel.tensor' cannot cut low-rank layers ('finetune.lora'): use 'parallel.data'.")
    if any(type(layer) is not Linear for layer in layers):
        raise InputError("'parallel.tensor' cuts plain dense layers, and this network's are quantised: load it plain.")
    config: Any = network.config
    counts = {"n_heads": config.n_heads, "n_kv_heads": config.kv_heads, "d_ff": config.d_ff}
    if any(count % size for count in counts.values()):
        sizes = ", ".join(f"{name} {count}" for name, count in counts.items())
        whole = math.gcd(*counts.values())
        fits = [str(number) for number in range(1, whole + 1) if whole % number == 0]
        raise InputError(
            f"'parallel.tensor' must divide the network's heads and hidden units ({sizes}), got {size}: "
            f"it can be {' or '.join(fits)}."
        )


def placed(ranks: Ranks, parallel: Parallel) -> Ranks:
    """The same processes, knowing which of them have rows or positions of their own: those that differ in their place
    among data × shard × context. Of the others, which work on the same, the first of a tensor group on the last stage
    of a pipeline counts, where losses are known."""
    shares = parallel.data * parallel.shard * parallel.context
    share = ranks.rank // parallel.tensor % shares
    stage = ranks.rank // (parallel.tensor * shares)
    counts = ranks.rank % parallel.tensor == 0 and stage == parallel.pipeline - 1
    return dataclasses.replace(ranks, share=share, counts=counts)


def refitted(parallel: Parallel, size: int) -> Parallel:
    """The layout for another number of processes, where no sizes are said.

    One process has everything. Of several, `tensor`, `pipeline` and `context` stay as they are, and `shard` takes the
    others where it was used, else `data`. `InputError` where those that stay do not divide the number.
    """
    if parallel.processes == size:
        return parallel
    if size == 1:
        return Parallel()
    fixed = parallel.tensor * parallel.pipeline * parallel.context
    if size % fixed:
        names = [name for name in ("tensor", "pipeline", "context") if getattr(parallel, name) > 1]
        ones = " ".join(f"--parallel.{name} 1" for name in names)
        raise InputError(
            f"{size} processes cannot be dealt to {parallel}: their number must be a multiple of {fixed}, or the "
            f"sizes others, such as {ones} --parallel.data {size}."
        )
    free = "shard" if parallel.shard > 1 else "data"
    return dataclasses.replace(parallel, **{"data": 1, "shard": 1, free: size // fixed})


def joined_mesh(mesh: Any, names: tuple[str, ...]) -> Any:
    """Neighbouring dimensions of a mesh as one, those of size 1 left out."""
    names = tuple(name for name in names if mesh[name].size() > 1) or names[:1]
    return mesh[names[0]] if len(names) == 1 else mesh[names]._flatten("_".join(names))
