"""Part 1: how well each family translates, after as much time and in the end."""

from __future__ import annotations

import dataclasses
import itertools
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from glassformer.errors import InputError
from glassformer.models.counting import count, family
from glassformer.studies.architectures.families import COLORS
from glassformer.studies.architectures.measuring import Pairs, rounds, step, timing
from glassformer.studies.architectures.paired import paired_bootstrap
from glassformer.studies.study import (
    Claim,
    Part,
    Picture,
    Result,
    Setting,
    Table,
    claim,
    matplotlib_figure,
    save_figure,
)
from glassformer.tasks.model import Model
from glassformer.training.experiment import train
from glassformer.training.jobs.translation import split_pairs
from glassformer.training.runs import Run

RECIPES = {
    "Transformer": "multi30k-en-de-transformer",
    "LSTM": "multi30k-en-de-lstm",
    "ConvS2S": "multi30k-en-de-convs2s",
}
"""The recipe of each family; the usual run has its name."""

FAMILIES = {"encoder-decoder": "Transformer", "recurrent": "LSTM", "convolutional": "ConvS2S"}

ROWS, WORDS = 146, 14
"""The batch whose training step is timed: 2,044 words, 14 a sentence, as in Multi30k."""

CERTAIN = 0.05
"""A difference counts where the paired bootstrap finds it the other way round less often than that."""


def run(setting: Setting) -> Result:
    """Translate the test sentences with every finished run, and read the metrics of its training."""
    folders = _runs(setting)
    measured = {name: _measure(folder, setting) for name, folder in folders.items()}
    for name, speed in _speeds(folders, setting).items():
        measured[name]["training_tokens_per_second"] = speed
        measured[name]["curve"] = _curve(Run.open(folders[name]).metrics(), speed)
    texts = {name: each.pop("hypotheses") for name, each in measured.items()}
    all_references = [each.pop("references") for each in measured.values()]
    references = all_references[0]
    if any(other != references for other in all_references):
        raise InputError("the runs' recipes name different test sentences: compare runs of one corpus.")
    resamples = setting.pick(50, 200, 1000)
    for name, each in measured.items():
        scored = paired_bootstrap(texts[name], texts[name], references, resamples)
        each.update(bleu=scored.first, low=scored.low, high=scored.high)
    pairs = [
        {"better": a, "worse": b, **dataclasses.asdict(paired_bootstrap(texts[a], texts[b], references, resamples))}
        for a, b in itertools.permutations(measured, 2)
        if measured[a]["bleu"] > measured[b]["bleu"]
    ]
    return {
        "families": measured,
        "pairs": pairs,
        "missing": [name for name in RECIPES if name not in measured],
        "n": len(references),
        "equal_time": equal_time({name: each["curve"] for name, each in measured.items()}),
    }


def _runs(setting: Setting) -> dict[str, Path]:
    """The runs by family: those given, or the usual ones that are there; with `train`, what is missing is trained."""
    given = setting.runs or tuple(Path("runs") / name for name in RECIPES.values())
    found: dict[str, Path] = {}
    for folder in given:
        if (folder / "glassformer.json").is_file():
            kind = FAMILIES.get(family(Model.load(folder).config), "")
            if kind in found or not kind:
                raise InputError(f"{folder}: there may be one run of each of {', '.join(RECIPES)}; this is another.")
            found[kind] = folder
        elif setting.runs:
            raise InputError(f"{folder} holds no finished run: train it to its end, or leave it out of --runs.")
    for name, recipe in RECIPES.items():
        if name not in found and setting.train:
            setting.say(f"   training recipes/{recipe}.toml")
            found[name] = Path("runs") / recipe
            watched: dict[str, Any] = {"evaluation.metric": "bleu", "evaluation.examples": 200}
            train(f"recipes/{recipe}.toml", run=found[name], data_root=setting.data_root, **watched)
    if not found:
        names = ", ".join(f"recipes/{name}.toml" for name in RECIPES.values())
        raise InputError(f"there is no finished translator: train {names} and give --runs, or give --train.")
    return found


def _measure(folder: Path, setting: Setting) -> dict[str, Any]:
    """What one finished run says of itself, and its translations of the test sentences."""
    opened, model = Run.open(folder), Model.load(folder)
    evaluation = opened.recipe.evaluation
    pairs = split_pairs(opened.recipe.data, "test", setting.data_root)
    n = min(len(pairs.source), setting.pick(20, 200, len(pairs.source)))
    model.translate(list(pairs.source[:2]), beam=evaluation.beam, tokenized=evaluation.tokenized)  # warm-up
    began = time.perf_counter()
    results = model.translate(
        list(pairs.source[:n]),
        beam=evaluation.beam,
        length_penalty=evaluation.length_penalty,
        tokenized=evaluation.tokenized,
    )
    seconds = time.perf_counter() - began
    return {
        "run": folder.name,
        "shape": model.config.shape,
        "parameters": count(model.config).total,
        "hypotheses": [result.text for result in results],
        "references": list(pairs.target[:n]),
        "sentences_per_second": n / seconds,
    }


def _speeds(folders: Mapping[str, Path], setting: Setting) -> dict[str, float]:
    """Target tokens that each network trains on in a second: forward and backward of one batch as the recipes have
    them, the networks taking turns, so that what else the machine does falls on all alike."""
    vocabulary = min(Model.load(folder).config.vocab_size for folder in folders.values())
    generator = torch.Generator().manual_seed(0)
    sides = [torch.randint(4, vocabulary, (ROWS, WORDS + extra), generator=generator) for extra in (0, 1)]
    batch = Pairs(*sides)
    works = {name: step(Model.load(folder).network.train(), batch) for name, folder in folders.items()}
    seconds = rounds(works, timing(setting))
    return {name: ROWS * WORDS / statistics.median(values) for name, values in seconds.items()}


def _curve(lines: Sequence[Mapping[str, Any]], speed: float) -> list[list[float]]:
    """[seconds, BLEU] of each time that validation was translated. The seconds are those that reading as many tokens
    takes at `speed`: runs made on different days, beside other work, are compared as if side by side."""
    found, tokens = [], 0.0
    for line in lines:
        tokens = line.get("tokens", tokens)
        if "valid_bleu" in line and not line.get("final"):
            found.append([tokens / speed, line["valid_bleu"]])
    return found


def equal_time(curves: Mapping[str, Sequence[Sequence[float]]]) -> dict[str, Any] | None:
    """BLEU of each after as many seconds: those of the shortest training that was watched. None unless all were.

    Of each curve [[seconds, BLEU], …] the last value not after that time.
    """
    if len(curves) < 2 or not all(curves.values()):
        return None
    seconds = min(curve[-1][0] for curve in curves.values())
    bleu = {name: [value for at, value in curve if at <= seconds] for name, curve in curves.items()}
    if not all(bleu.values()):
        return None
    return {"seconds": seconds, "bleu": {name: values[-1] for name, values in bleu.items()}}


def draw(result: Result, folder: Path) -> list[Picture]:
    """BLEU in the end, and over the time of training."""
    figure = matplotlib_figure(11, 4)
    left, right = figure.subplots(1, 2)
    families = result["families"]
    for place, (name, each) in enumerate(families.items()):
        error = [[max(each["bleu"] - each["low"], 0)], [max(each["high"] - each["bleu"], 0)]]
        left.bar(place, each["bleu"], yerr=error, color=COLORS[name], capsize=5)
        if each["curve"]:
            times, values = zip(*each["curve"], strict=True)
            right.plot([at / 60 for at in times], values, color=COLORS[name], label=name)
    left.set_xticks(range(len(families)), list(families))
    left.set_ylabel("BLEU, test, beam search")
    right.set_xlabel("minutes of training, at the speeds measured side by side")
    right.set_ylabel("BLEU, validation, greedy")
    if right.lines:
        right.legend()
    caption = (
        f"Translation from English to German (Multi30k): BLEU of {result['n']} test sentences with 95 % intervals over "
        "the sentences (one seed each), and of 200 validation sentences while training."
    )
    return [save_figure(figure, folder, "translation", caption)]


def tables(result: Result) -> list[Table]:
    """Quality, size and speed of each."""

    def shown(value: float | None, form: str) -> str:
        return "unknown" if value is None else format(value, form)

    rows = []
    for name, each in result["families"].items():
        timed = result["equal_time"]
        rows.append(
            (
                name,
                each["shape"],
                f"{each['parameters']:,}",
                f"{each['bleu']:.1f} ({each['low']:.1f} to {each['high']:.1f})",
                shown(timed["bleu"][name] if timed else None, ".1f"),
                shown(each["training_tokens_per_second"], ",.0f"),
                f"{each['sentences_per_second']:.1f}",
            )
        )
    seconds = f" (validation, after {result['equal_time']['seconds'] / 60:.0f} min)" if result["equal_time"] else ""
    columns = (
        *("family", "network", "parameters", "BLEU (test)", f"BLEU at equal time{seconds}"),
        *("training tokens/s", "decoded sentences/s"),
    )
    missing = [(name, "no finished run: train recipes/" + RECIPES[name] + ".toml") for name in result["missing"]]
    found = [Table(f"Translators, n = {result['n']} test sentences, one seed each", columns, tuple(rows))]
    return [*found, Table("Missing", ("family", "why"), tuple(missing))] if missing else found


def claims(result: Result) -> list[Claim]:
    """The Transformer against each of the others, in the end and at equal time."""
    found = []
    for other in ("LSTM", "ConvS2S"):
        found.append(_better(result, other))
    timed = result["equal_time"]
    others = {name: value for name, value in timed["bleu"].items() if name != "Transformer"} if timed else {}
    known = timed is not None and "Transformer" in timed["bleu"] and len(others) == 2
    found.append(
        claim(
            "After the same time of training, the Transformer translates best.",
            "its BLEU on validation is the highest of the three when the shortest training ends",
            ", ".join(f"{name} {value:.1f}" for name, value in timed["bleu"].items()) if timed else "not watched",
            all(timed["bleu"]["Transformer"] > value for value in others.values()) if timed and known else None,
        )
    )
    return found


def _better(result: Result, other: str) -> Claim:
    """Whether the Transformer is better than another family, by the paired bootstrap."""
    text = f"In the end the Transformer translates better than the {other}."
    rule = f"its BLEU is higher, and p < {CERTAIN} by paired bootstrap over the test sentences"
    pair = next((each for each in result["pairs"] if {each["better"], each["worse"]} == {"Transformer", other}), None)
    if pair is None:
        return claim(text, rule, "one of the two is missing, or they are equal", None)
    measured = (
        f"{pair['better']} is ahead by {pair['first'] - pair['second']:.1f} BLEU ({pair['difference_low']:.1f} to "
        f"{pair['difference_high']:.1f}), p = {pair['p']:.3f}, n = {result['n']}"
    )
    return claim(text, rule, measured, pair["better"] == "Transformer" and pair["p"] < CERTAIN)


PART = Part(
    "translation",
    "Translation",
    "Which of the three translates best, given the same data: in the end, and after the same time?",
    "English to German, Multi30k, lowercased tokens, a joint vocabulary of 4,000. The recipes' networks have as many "
    "parameters, within 3 %; the table says what was given. Each was trained by its own recipe. Test: beam search. "
    "Intervals and p by paired bootstrap over sentences (Koehn 2004); another seed was not tried. Training speed is "
    "that of forward and backward of one batch, the three taking turns; time is the tokens read over that speed.",
    run,
    draw,
    tables,
    claims,
    version=2,
)
