"""How a Transformer recalls a fact: token concatenation, fact lookup, attribute extraction, and whether it is
distributed. Predictions first, then measurements, then verdicts that may say "not supported"."""

from __future__ import annotations

from pathlib import Path

from glassformer.studies.fact_recall import gate
from glassformer.studies.fact_recall.stages import Material, Stage, Work
from glassformer.studies.running import Done, run_parts
from glassformer.studies.study import Setting

TITLE = "How a fact is recalled"

ABOUT = """How does a Transformer know that Michael Jordan plays basketball? The published account has three stages.
Token concatenation: early layers gather the parts of a name at its last token. Fact lookup: feed-forwards turn the name
into its attributes. Attribute extraction: attention heads carry the asked attribute to the end of the prompt. And
recall is said to be distributed, not the work of a few neurons (Geva et al. 2023, Nanda et al. 2023, Meng et al. 2022).

Each sentence of that is tested here on one model: an edit to its computation, a control that differs in the one thing
that is to matter, an interval over subjects. Predictions and thresholds were written down before (predictions.py). A
verdict follows from its rule alone: the p value is corrected for the number of all tests in this report (Holm 1979), so
that one chance in twenty is that of any error among all of them."""


def stages() -> tuple[Stage, ...]:
    """The stages in the order of the report; later ones may read what earlier ones measured."""
    from glassformer.studies.fact_recall.concatenation import STAGE as concatenation
    from glassformer.studies.fact_recall.distributed import STAGE as distributed
    from glassformer.studies.fact_recall.extraction import STAGE as extraction
    from glassformer.studies.fact_recall.lookup import STAGE as lookup
    from glassformer.studies.fact_recall.neurons import STAGE as neurons

    return concatenation, lookup, neurons, extraction, distributed


def study(material: Material, setting: Setting, out: Path, first: int = 1) -> list[Done]:
    """Measure the gate and all stages for one model and its facts, each kept in `out` as soon as it is there. `first`
    is the number of the first part. The claims are those of `verdicts.judged`, over all parts of a report."""
    done = run_parts([gate.part(material)], setting, out, first)
    result = done[0].result or {"rows": [], "missing": done[0].missing}
    work = Work(material, result["rows"], result["missing"])
    for number, stage in enumerate(stages(), first + 1):
        found = run_parts([stage.part(work)], setting, out, number)
        if found[0].result is not None:
            work.results[found[0].part.name] = found[0].result
        done += found
    return done
