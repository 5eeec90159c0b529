"""What a Transformer knows of order: the table of sines, and sentences whose meaning is the order of their words."""

from __future__ import annotations

from glassformer.models.counting import count
from glassformer.studies.architectures.order.drawing import draw, tables
from glassformer.studies.architectures.order.table import dot_products, largest_errors, neighbours
from glassformer.studies.architectures.order.training import POSITIONS, OrderBudget, config_of, learned
from glassformer.studies.architectures.order.verdicts import claims
from glassformer.studies.study import Part, Result, Setting


def run(setting: Setting) -> Result:
    """Numbers of the table; then each kind of positions learns to answer."""
    budget = OrderBudget(
        steps=setting.pick(4, 150, 500),
        rows=setting.pick(8, 64, 64),
        rates=setting.pick((3e-3,), (3e-3,), (1e-3, 3e-3)),
        seeds=setting.pick(1, 2, 3),
        tested=setting.pick(30, 600, 1200),
        d_model=setting.pick(16, 32, 48),
    )
    width, length = setting.pick(32, 128, 512), setting.pick(64, 256, 512)
    kinds: Result = {}
    for name in POSITIONS:
        setting.say(f"   positions: {name}")
        kinds[name] = learned(name, budget)
    return {
        "table": {
            "width": width,
            "length": length,
            "dot_products": dot_products(width, length),
            "near": neighbours(width, length),
            **largest_errors(width, length),
        },
        "budget": budget.as_json(),
        "parameters": {name: count(config_of(name, budget.d_model)).total for name in POSITIONS},
        "kinds": kinds,
    }


PART = Part(
    name="order",
    title="Order: who hit whom with what",
    question=(
        'Attention takes a sum over words, and a sum has no order: without more, "he hit me with a pie" and "me hit '
        'pie with a he" are the same bag of words. Recurrence and convolution know order by how they are built; a '
        "Transformer is told it by numbers that depend on the position. What do these numbers say, and what can a "
        "Transformer not do without them?"
    ),
    method=(
        'The table of sines and cosines is checked in double precision. Then an encoder of two layers answers "who", '
        '"whom" or "what" about sentences such as "then he hit me with a pie", in which any three of ten words '
        "stand in any order; the question stands first, and the answer is read off its state. Each sentence has five "
        "others with the same words, so that the words alone leave a third right. Tested on combinations of words that "
        'were never trained. All kinds of positions get the same batches, steps and learning rates; "none" is the '
        "network with sines in which a plan replaces the vectors by zeros, in training and after. An encoder, since a "
        "decoder sees only what comes before, and that alone tells some order."
    ),
    run=run,
    draw=draw,
    tables=tables,
    claims=claims,
)
