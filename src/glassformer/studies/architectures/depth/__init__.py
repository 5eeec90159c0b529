"""Depth: what residuals, norms and feed-forwards do for a stack of attention, from 1 to 16 blocks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import mean

from glassformer.studies.architectures.depth.blocks import WIRINGS
from glassformer.studies.architectures.depth.drawing import draw, geometric_mean
from glassformer.studies.architectures.depth.measuring import JUDGED, WORDS, at_start, entropy, trained
from glassformer.studies.study import Claim, Part, Result, Setting, Table, claim

SHALLOW, DEEP = 2, 16

VANISHED = 0.1
"""A first block's gradient below this share of the last one's has vanished."""

MARGIN = 0.1
"""Nats a word by which a loss has to be higher to count as worse."""

NOTHING = 1e-12
"""Below this share of the states' norm, what tells positions apart is lost in double precision."""

KEPT = 0.1
"""From this share on, positions can be told apart."""


def run(setting: Setting) -> Result:
    """Gradients and ranks of fresh networks, then a training for each wiring and depth."""
    parameters = setting.pick(6_000, 30_000, 30_000)
    depth, start_seeds = setting.pick(6, DEEP, DEEP), setting.pick(1, 3, 5)
    depths = setting.pick((1, 2), (SHALLOW, DEEP), (1, 2, 4, 8, 16))
    steps, seeds = setting.pick(3, 40, 120), setting.pick(1, 1, 3)
    rates = setting.pick((4e-3,), (4e-3, 1.2e-2), (1.3e-3, 4e-3, 1.2e-2))
    start = at_start(depth, parameters, start_seeds)
    trainings = []
    for name in setting.pick(tuple(WIRINGS)[:2], TRAINED[:5], TRAINED):
        setting.say(f"   {name}")
        trainings += [trained(name, each, parameters, steps, rates, seeds) for each in depths]
    return {
        "parameters": parameters,
        "depth": depth,
        "start_seeds": start_seeds,
        "start": start,
        "steps": steps,
        "seeds": seeds,
        "test_texts": JUDGED,
        "entropy": entropy(),
        "uniform": math.log(WORDS),
        "trainings": trainings,
    }


TRAINED = ("pre-norm", "post-norm", "no norm", "no residual", "no feed-forward", "no residual, no norm")
"""The wirings that are trained; the quick scale leaves the last one out."""


def tables(result: Result) -> Sequence[Table]:
    """Losses with the chosen rates, and gradients and ranks at the start."""
    losses = [
        (
            row["wiring"],
            str(row["depth"]),
            f"{row['parameters']:,}",
            str(row["d_model"]),
            f"{row['rate']:g}",
            ", ".join("no number" if loss is None else f"{loss:.3f}" for loss in row["losses"]),
        )
        for row in result["trainings"]
    ]
    start = [
        (
            name,
            f"{geometric_mean(_first_over_last(result, name)):.2g}",
            f"{geometric_mean(_spread(result, name)):.2g}",
            f"{geometric_mean([seed[-1] for seed in found['ranks']]):.2g}",
        )
        for name, found in result["start"].items()
    ]
    return [
        Table(
            f"Test loss after {result['steps']} steps (nats a word, each seed)",
            ("wiring", "blocks", "parameters", "d_model", "learning rate", "loss"),
            tuple(losses),
        ),
        Table(
            f"Fresh networks of {result['depth']} blocks (geometric means of {result['start_seeds']} seeds)",
            ("wiring", "gradient, first / last block", "gradient, largest / smallest", "‖X − 1x̄ᵀ‖ / ‖X‖ at the end"),
            tuple(start),
        ),
    ]


def claims(result: Result) -> Sequence[Claim]:
    """What is said of gradients and ranks at the start, and of losses."""
    return [
        _vanishes(result, "no residual", "Without residuals, norms kept,"),
        _vanishes(result, "no residual, no norm", "Without residuals and norms"),
        _post_norm_varies(result),
        _collapses(result),
        _keeps(result),
        _deeper_is_worse(result),
        _deeper_is_no_worse(result),
        _needs_norm(result),
        _needs_feed_forward(result),
    ]


def _first_over_last(result: Result, name: str) -> list[float]:
    return [seed[0] / max(seed[-1], 1e-300) for seed in result["start"][name]["gradients"]]


def _spread(result: Result, name: str) -> list[float]:
    return [max(seed) / max(min(seed), 1e-300) for seed in result["start"][name]["gradients"]]


def _vanishes(result: Result, name: str, which: str) -> Claim:
    found = _first_over_last(result, name)
    return claim(
        f"{which} the gradient vanishes on its way through {DEEP} blocks.",
        f"In fresh networks of {DEEP} blocks, the first block's gradient is less than {VANISHED:g} of the last one's, "
        "in every seed.",
        f"first / last block: {_numbers(found)} ({len(found)} seeds, {result['depth']} blocks)",
        None if result["depth"] != DEEP else all(each < VANISHED for each in found),
    )


def _post_norm_varies(result: Result) -> Claim:
    post, pre = _spread(result, "post-norm"), _spread(result, "pre-norm")
    return claim(
        "Norms after the residual leave gradients less even over depth than norms before the sub-layer.",
        f"In fresh networks of {DEEP} blocks, the largest gradient of a block over the smallest is larger with "
        "post-norm than with pre-norm, in every seed.",
        f"largest / smallest: post-norm {_numbers(post)}, pre-norm {_numbers(pre)}",
        None if result["depth"] != DEEP else all(a > b for a, b in zip(post, pre, strict=True)),
    )


def _collapses(result: Result) -> Claim:
    runs = result["start"]["attention alone"]["ranks"]
    return claim(
        "Attention alone makes all positions alike, faster than exponentially (Dong et al. 2021).",
        f"Of the states of a fresh stack, ‖X − 1x̄ᵀ‖ / ‖X‖ shrinks by a larger factor in each block than in the one "
        f"before, until less than {NOTHING:g} is left, in every seed; at least three such factors.",
        "after 0, 1, … blocks: " + "; ".join(_numbers(seed[:7]) for seed in runs),
        all(shrinks_faster(seed) for seed in runs),
    )


def shrinks_faster(shares: Sequence[float]) -> bool:
    """Whether numbers fall by a growing factor until one is less than `NOTHING`, at least three times."""
    end = next((place for place, share in enumerate(shares) if share < NOTHING), None)
    if end is None:
        return False
    factors = [before / max(after, 1e-300) for before, after in zip(shares[:end], shares[1 : end + 1], strict=True)]
    growing = all(later > earlier for earlier, later in zip(factors, factors[1:], strict=False))
    return len(factors) >= 3 and growing


def _keeps(result: Result) -> Claim:
    ends = [seed[-1] for seed in result["start"]["pre-norm"]["ranks"]]
    return claim(
        "With residuals and pre-norm, positions stay different through the whole stack.",
        f"‖X − 1x̄ᵀ‖ / ‖X‖ is at least {KEPT:g} after {DEEP} blocks of a fresh network, in every seed.",
        f"after {result['depth']} blocks: {_numbers(ends)}",
        None if result["depth"] != DEEP else all(end >= KEPT for end in ends),
    )


def losses_of(result: Result, name: str, depth: int) -> list[float] | None:
    """Test losses of a wiring at a depth, infinite where a training ended in no number; None if it was not trained."""
    for row in result["trainings"]:
        if (row["wiring"], row["depth"]) == (name, depth):
            return [math.inf if loss is None else loss for loss in row["losses"]]
    return None


def worse(first: list[float] | None, second: list[float] | None) -> bool | None:
    """Whether the first losses are higher by `MARGIN`, seed for seed; None where one was not measured."""
    if first is None or second is None:
        return None
    return all(a > b + MARGIN for a, b in zip(first, second, strict=True))


def _deeper_is_worse(result: Result) -> Claim:
    deep, shallow = (losses_of(result, "no residual", depth) for depth in (DEEP, SHALLOW))
    return claim(
        f"Without residuals, {DEEP} blocks learn less than {SHALLOW}.",
        f"After equal steps and at equal parameters, the loss of {DEEP} blocks without residuals is higher than that "
        f"of {SHALLOW} by more than {MARGIN:g} nats a word, in every seed.",
        f"{DEEP} blocks {_numbers(deep)}, {SHALLOW} blocks {_numbers(shallow)} nats a word ({result['seeds']} seed(s))",
        worse(deep, shallow),
    )


def _deeper_is_no_worse(result: Result) -> Claim:
    deep, shallow = (losses_of(result, "pre-norm", depth) for depth in (DEEP, SHALLOW))
    holds = None if deep is None or shallow is None else mean(deep) <= mean(shallow) + MARGIN
    return claim(
        f"With residuals and pre-norm, {DEEP} narrow blocks learn as well as {SHALLOW} wide ones.",
        f"After equal steps and at equal parameters, the mean loss of {DEEP} blocks is not higher than that of "
        f"{SHALLOW} by more than {MARGIN:g} nats a word.",
        f"{DEEP} blocks {_numbers(deep)}, {SHALLOW} blocks {_numbers(shallow)} nats a word ({result['seeds']} seed(s))",
        holds,
    )


def _needs_norm(result: Result) -> Claim:
    without, pre = losses_of(result, "no norm", DEEP), losses_of(result, "pre-norm", DEEP)
    shallow = losses_of(result, "no norm", SHALLOW), losses_of(result, "pre-norm", SHALLOW)
    return claim(
        f"{DEEP} blocks without norms learn less than with pre-norm.",
        f"After equal steps, the loss of {DEEP} blocks without norms is higher by more than {MARGIN:g} nats a word, in "
        "every seed (no number counts as infinite).",
        f"{DEEP} blocks: without {_numbers(without)}, pre-norm {_numbers(pre)}; {SHALLOW} blocks: without "
        f"{_numbers(shallow[0])}, pre-norm {_numbers(shallow[1])} nats a word ({result['seeds']} seed(s))",
        worse(without, pre),
    )


def _needs_feed_forward(result: Result) -> Claim:
    without, whole = (_best(result, name) for name in ("no feed-forward", "pre-norm"))
    return claim(
        "Attention without feed-forwards learns less than whole blocks of as many parameters.",
        "Each at the depth of its lowest held-out loss, the loss without feed-forwards is higher than that of whole "
        f"blocks by more than {MARGIN:g} nats a word, in every seed.",
        f"without {_numbers(without)}, whole {_numbers(whole)} nats a word ({result['seeds']} seed(s))",
        worse(without, whole),
    )


def _best(result: Result, name: str) -> list[float] | None:
    """Test losses at the depth that held-out texts prefer."""

    def held_out(row: Result) -> float:
        return min((loss for loss in row["held_out"].values() if loss is not None), default=math.inf)

    rows = [row for row in result["trainings"] if row["wiring"] == name]
    return losses_of(result, name, min(rows, key=held_out)["depth"]) if rows else None


def _numbers(values: Sequence[float] | None) -> str:
    if values is None:
        return "not measured"
    return ", ".join("no number" if math.isinf(value) else f"{value:.3g}" for value in values)


PART = Part(
    name="depth",
    title="Depth",
    question="Attention mixes positions; but a Transformer's block also has a residual, a norm and a feed-forward. "
    "What happens in a deep stack when one of them is missing?",
    method="Small causal decoders of the package's own attention, feed-forward and norms, blocks wired in seven ways, "
    "from 1 to 16 blocks (2 and 16 at the quick scale) with as many parameters each (within 3 %, by their width). "
    "Fresh networks: the gradient's norm over each block's parameters, and how much of the states is not common to all "
    "positions. Trained networks: loss on a made-up language in which the next word depends on the pair of words "
    "before it, after as many steps on the same texts, with the learning rate of the same small grid that does best "
    "on held-out texts with the first seed.",
    run=run,
    draw=draw,
    tables=tables,
    claims=claims,
)
