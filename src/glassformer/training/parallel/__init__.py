"""Parallelism, applied to a finished network from outside: the network knows nothing of it.

    mesh = pipeline × data × shard × context × tensor      one process a place
    data:  every process has the network; gradients are averaged (DistributedDataParallel)
    shard: every process has a share of each parameter, gathered block by block (FSDP2, `fully_shard`)
    tensor: every process has some heads and hidden units of each block (DTensor plans; `fully_shard` does the rest)
    context: every process has some positions of each row, and gathers keys and values (decoders)
    pipeline: every process has some blocks, through which pieces of a batch go one after another (decoders, BERT)

The rows of a batch are dealt to the data × shard places, their positions to the context places. Each place sums its
losses and the sums are added up, so what is optimised is the mean over the batch's tokens, wherever these lie. The
processes of a tensor group do the same work on the same tokens, which count once.
"""

from glassformer.training.parallel.applying import applied
from glassformer.training.parallel.dealing import dealt
from glassformer.training.parallel.layouts import check_layout, check_network, placed, refitted
from glassformer.training.parallel.learner import Learner, alone

__all__ = ["Learner", "alone", "applied", "check_layout", "check_network", "dealt", "placed", "refitted"]
