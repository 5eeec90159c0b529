"""What decoding looks up in sources that were read once."""

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from glassformer.layers.rows import KeysValues


class Source:
    """Keys and values of R sources, one pair a layer, and a mask of what of them is real.

    Rows that continue the same source (the hypotheses of a beam) share its keys and values, as long as every source has
    the same number of rows, side by side; otherwise each row gets its own copy.
    """

    def __init__(self, memories: list[KeysValues], mask: Bool[Tensor, "R 1 1 S"]) -> None:
        # laid out once as every step's products read them
        self.memories = [(key.contiguous(), value.contiguous()) for key, value in memories]
        self.mask = mask
        self._of_row = torch.arange(len(mask), device=mask.device)

    def select(self, rows: Int[Tensor, "B"]) -> None:
        """Row i continues old row rows[i]."""
        wanted = self._of_row[rows]
        kept, counts = torch.unique_consecutive(wanted, return_counts=True)
        even = bool((counts == counts[0]).all())
        if even and torch.equal(kept, torch.arange(len(self.mask), device=kept.device)):
            self._of_row = wanted
            return
        index = kept if even else wanted
        self.memories = [(key[index], value[index]) for key, value in self.memories]
        self.mask = self.mask[index]
        self._of_row = torch.arange(len(index), device=index.device).repeat_interleave(len(wanted) // len(index))
