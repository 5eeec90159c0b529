"""`glassformer hallucination`: what detects a model's wrong answers and what helps, as one report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from glassformer.cli.options import PrecisionOption
from glassformer.cli.output import put
from glassformer.cli.studies import (
    ClaimsOption,
    DataRootOption,
    OutOption,
    ScaleOption,
    ThreadsOption,
    put_claims,
    setting_of,
    write_study,
)

OnlyOption = Annotated[
    tuple[str, ...],
    Parameter(
        help="Measure these parts alone: detection, calibration, abstention, prompting, misleading, grounding, "
        "decoding, truth.",
        consume_multiple=True,
        negative="",
        show_default=False,
    ),
]

AthletesOption = Annotated[
    Path | None,
    Parameter(
        help="The run of recipes/athletes-gpt.toml, for exact truth; runs/athletes-gpt where it is there.",
        show_default=False,
    ),
]


def hallucination(
    *,
    model: Annotated[str, Parameter(help="The model to study: a run, a folder, a GGUF file, or a known name.")],
    out: OutOption = Path("hallucination"),
    quick: Annotated[bool, Parameter(help="Minutes instead of an hour: fewer questions.", negative="")] = False,
    only: OnlyOption = (),
    athletes: AthletesOption = None,
    data_root: DataRootOption = None,
    seed: Annotated[int, Parameter(help="Draws questions, shots and splits.")] = 0,
    threads: ThreadsOption = None,
    precision: PrecisionOption = None,
    scale: ScaleOption = None,
    json: ClaimsOption = False,
) -> None:
    """Study when a model says what is not so: which signals detect it, what prompting and grounding change.

    Asks questions with known answers (docs/data.md), in several ways, with evidence and with wrong evidence, and says
    with intervals what tells wrong answers from right ones, how well a calibrated risk holds, and what helps. Writes
    report.html, the same as report.md, its figures as PNG, and report.json. Each part is kept as soon as it is
    measured: what was interrupted goes on from there. Prints the page's path, or with --json each claim.
    """
    setting = setting_of(scale, quick, threads, data_root)
    import glassformer
    from glassformer.studies.hallucination import ABOUT, TITLE, check_names, study
    from glassformer.studies.hallucination.bench import Bench

    check_names(only)
    loaded = glassformer.load(model, precision=precision)
    bench = Bench(model, loaded, data_root, out, athletes or _usual_run(), seed)
    done = study(bench, setting, out, only)
    notes = [("model", model), ("relations", ", ".join(bench.relations)), ("seed", str(seed))]
    page = write_study(TITLE, ABOUT, done, setting, out, notes)
    if json:
        put_claims(done)
    else:
        put(str(page))


def _usual_run() -> Path | None:
    """Where the recipe's training lies, if it is there."""
    run = Path("runs/athletes-gpt")
    return run if (run / "model.safetensors").is_file() else None
