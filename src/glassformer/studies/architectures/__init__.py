"""What the Transformer replaced, beside it: recurrence, convolution and attention at equal size, part by part."""

from __future__ import annotations

from glassformer.studies.study import Part

TITLE = "Recurrence, convolution, attention"

ABOUT = """A network that turns one sentence into another has to bring together words that stand far apart. Recurrent
networks (LSTM) read one word after the other and carry what they know along; convolutions (ConvS2S) look through a
window, and see farther in higher layers; attention (the Transformer) lets every word look at every other at once, and
pays for it in memory. "Attention Is All You Need" (Vaswani et al. 2017) claims that this is faster, and carries
farther. Here each of these claims is measured on this machine, with networks of as many parameters that get the same
data and budget.

Each part asks one question, and ends with claims: a sentence that could be wrong, the rule that decides it, what was
measured, and the verdict, which follows from the rule alone."""


def parts() -> tuple[Part, ...]:
    """All parts in the order of the report."""
    from glassformer.studies.architectures.cost import PART as cost
    from glassformer.studies.architectures.depth import PART as depth
    from glassformer.studies.architectures.distance import PART as distance
    from glassformer.studies.architectures.heads import PART as heads
    from glassformer.studies.architectures.memory import PART as memory
    from glassformer.studies.architectures.order import PART as order
    from glassformer.studies.architectures.parallelism import PART as parallelism
    from glassformer.studies.architectures.scaling import PART as scaling
    from glassformer.studies.architectures.translation import PART as translation

    return translation, cost, distance, parallelism, order, heads, scaling, depth, memory
