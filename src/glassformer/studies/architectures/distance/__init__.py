"""How far apart two things may stand: accuracy against distance, and gradients that arrive or vanish."""

from __future__ import annotations

from torch import nn

from glassformer.models.config import AnyConfig
from glassformer.models.counting import count
from glassformer.studies.architectures.distance.drawing import draw, tables
from glassformer.studies.architectures.distance.gradients import encoder_gradients, loss_gradients
from glassformer.studies.architectures.distance.training import TASKS, Budget, as_json, drawn, learned
from glassformer.studies.architectures.distance.verdicts import claims
from glassformer.studies.architectures.families import matched
from glassformer.studies.architectures.tasks import N_COPIED, N_PAIRS, VOCABULARY
from glassformer.studies.study import Part, Result, Setting


def run(setting: Setting) -> Result:
    """Train each family on each task; measure gradients of fresh networks and of those that learned to copy."""
    budget = Budget(
        distances=tuple(2**power for power in range(setting.pick(2, 6, 10))),
        steps=setting.pick({"copy": 2, "recall": 2}, {"copy": 120, "recall": 180}, {"copy": 300, "recall": 400}),
        rows=setting.pick(4, 48, 32),
        rates=setting.pick((7e-3,), (7e-3,), (3e-3, 1e-2)),
        seeds=setting.pick(1, 1, 3),
        tested=setting.pick(8, 128, 96),
    )
    gaps = [0, *(2**power for power in range(setting.pick(3, 7, 10)))]
    rows = setting.pick(2, 16, 4)
    longest = 2 * max(*budget.distances, *gaps) + 2 * N_PAIRS + N_COPIED
    configs = matched(setting.pick(21_000, 42_000, 64_000), VOCABULARY, max_length=longest)
    tasks: Result = {task: {} for task in TASKS}
    gradients: Result = {"distances": gaps, "initial": {}, "trained": {}, "encoder": {}}
    for name, config in configs.items():
        fresh = [drawn(config, seed) for seed in range(1, budget.seeds + 1)]
        networks: dict[str, list[nn.Module]] = {}
        for task in TASKS:
            setting.say(f"   {name}: {task}")
            tasks[task][name], networks[task] = learned(config, task, budget)
        gradients["initial"][name] = [loss_gradients(each, gaps, rows, 1) for each in fresh]
        gradients["trained"][name] = [loss_gradients(each, gaps, rows, 1) for each in networks["copy"]]
        gradients["encoder"][name] = [encoder_gradients(each, gaps, rows, 1) for each in fresh]
    sizes = {name: count(config).total for name, config in configs.items()}
    return {
        "budget": as_json(budget),
        "parameters": sizes,
        "reach": _reach(configs["ConvS2S"]),
        "gradient_rows": rows,
        "tasks": tasks,
        "gradients": gradients,
    }


def _reach(config: AnyConfig) -> int:
    """How many positions before it a state of ConvS2S's encoder sees."""
    return config.n_encoder_layers * (config.kernel // 2)  # type: ignore[union-attr]


PART = Part(
    name="distance",
    title="Far apart: what arrives",
    question=(
        "What a network has to say now may depend on something that it read long ago. A recurrent network carries it "
        "along through every word between; a convolution hands it on from window to window; attention looks at it "
        "directly. Does what stands far away still arrive, and can a network learn that it matters?"
    ),
    method=(
        "Two made-up tasks for encoder-decoders of equal size. Copy: repeat two symbols. Recall: three pairs of a key "
        "and a value were read, say the value of a key. What is needed stands between distractors, as many before it "
        "as after it (recurrent encoders read from both ends). One training meets all distances, a far one less often; "
        "all families get the same batches, steps and learning rates, and the rate is chosen on held-out batches. "
        "Gradients: the norm of the gradient of a loss at the embeddings of the symbols, against how far before the "
        "end they stand, in sources of one length; divided by that of symbols at the end. The loss is of a symbol "
        "drawn at random, since that of the right one vanishes where a task is solved."
    ),
    run=run,
    draw=draw,
    tables=tables,
    claims=claims,
)
