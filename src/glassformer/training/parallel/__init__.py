"""Parallelism, applied to a finished network from outside: the network knows nothing of it.

    mesh = pipeline × data × shard × context × tensor      one process a place
    data:  every process has the network; gradients are averaged (DistributedDataParallel)
    shard: every process has a share of each parameter, gathered block by block (FSDP2, `fully_shard`)

The rows of a batch are dealt to the data × shard places. Each place sums its losses and the sums are added up, so
what is optimised is the mean over the batch's tokens, wherever these lie.
"""

from glassformer.training.parallel.applying import applied
from glassformer.training.parallel.dealing import dealt
from glassformer.training.parallel.layouts import check_layout, refitted
from glassformer.training.parallel.learner import Learner, alone

__all__ = ["Learner", "alone", "applied", "check_layout", "dealt", "refitted"]
