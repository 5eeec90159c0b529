"""Division by √d_k: what the softmax makes of wide heads with it and without, random and trained."""

from __future__ import annotations

from glassformer.studies.architectures.scaling.drawing import draw, tables
from glassformer.studies.architectures.scaling.softmax import measured
from glassformer.studies.architectures.scaling.training import ScalingBudget, learned
from glassformer.studies.architectures.scaling.verdicts import claims
from glassformer.studies.study import Part, Result, Setting


def run(setting: Setting) -> Result:
    """Random queries and keys of each width; then encoders with heads of each width, scaled and not."""
    widths = [8 * 2**power for power in range(7)]
    keys, sets = 64, setting.pick(8, 32, 128)
    budget = ScalingBudget(
        steps=setting.pick(4, 120, 200),
        rows=setting.pick(8, 64, 64),
        rates=setting.pick((1e-3,), (1e-3,), (5e-4, 2e-3)),
        seeds=setting.pick(1, 1, 3),
        tested=setting.pick(30, 600, 1200),
        d_model=setting.pick(16, 128, 128),
        widths=setting.pick((8, 16), (8, 32, 128), (8, 16, 32, 64, 128)),
    )
    training: Result = {}
    for width in budget.widths:
        setting.say(f"   heads of {width}")
        training[str(width)] = {name: learned(width, name == "scaled", budget) for name in ("scaled", "unscaled")}
    return {
        "widths": widths,
        "keys": keys,
        "queries": sets * keys,
        "softmax": {str(width): measured(width, keys, sets, seed=1) for width in widths},
        "budget": budget.as_json(),
        "training": training,
    }


PART = Part(
    name="scaling",
    title="Scaling: why scores are divided by √d_k",
    question=(
        "Attention compares a query with a key by their dot product, a sum over the head's width d_k. The wider the "
        "head, the larger the sums, and the more the softmax gives all its weight to one word; the paper divides by "
        "√d_k, since it suspects that otherwise hardly any gradient is left. Is that so, and does it matter in "
        "training?"
    ),
    method=(
        "Queries and keys of independent numbers with mean 0 and variance 1, 64 keys a query: the variance of their "
        "products, the entropy of the softmax relative to log 64 (1: all words alike, 0: one word alone), and the norm "
        "of the gradient at the scores and at the query when one of variance 1 arrives at each weight. Then encoders "
        "with one head of each width answer the questions of the part about order, with the scaling and "
        "without: the same batches, steps and learning rates, the rate chosen on held-out sentences; held-out loss and "
        "the entropy of the patterns."
    ),
    run=run,
    draw=draw,
    tables=tables,
    claims=claims,
)
