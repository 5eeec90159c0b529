"""The figures of the part "heads"."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from glassformer.studies.study import Picture, Result, matplotlib_figure, save_figure
from glassformer.tasks.intervals import wilson

_SOURCES = {
    "encoder": ("translator, encoder", "C0", "o"),
    "decoder": ("translator, decoder", "C1", "s"),
    "cross-attention": ("translator, cross-attention", "C2", "^"),
    "untrained": ("untrained, encoder", "0.6", "x"),
    "sentence encoder": ("MiniLM", "C3", "."),
}


def draw(result: Result, folder: Path) -> Sequence[Picture]:
    """Losses over the number of heads, two grids of patterns, how wide and how far heads look, and relations."""
    return [
        _counts(result["counts"], folder),
        _patterns(result, "encoder", folder),
        _patterns(result, "cross-attention", folder),
        _habits(result, folder),
        _relations(result, folder),
    ]


def _counts(counts: dict[str, Any], folder: Path) -> Picture:
    figure = matplotlib_figure(9, 3.5)
    heads = [row["heads"] for row in counts["rows"]]
    for axes, name, label, times in zip(
        figure.subplots(1, 2),
        ("loss", "exact"),
        ("test loss (nats a character)", "exact match (%)"),
        (1, 100),
        strict=True,
    ):
        for seed in range(counts["seeds"]):
            values = [times * row[name][seed] for row in counts["rows"]]
            axes.plot(heads, values, ".", color="C0", alpha=0.6)
        axes.plot(heads, [times * sum(row[name]) / len(row[name]) for row in counts["rows"]], "-", color="C0")
        axes.set_xscale("log", base=2)
        axes.set_xticks(heads, [str(each) for each in heads])
        axes.set(xlabel="heads", ylabel=label)
        axes.grid(alpha=0.3)
    caption = (
        f"Dates in {counts['locales']} languages to ISO, after {counts['steps']} steps: d_model {counts['d_model']} "
        f"and {counts['parameters']:,} parameters whatever the number of heads. Dots: {counts['seeds']} seed(s), line: "
        f"their mean; {counts['test_pairs']} test pairs."
    )
    return save_figure(figure, folder, "heads-count", caption)


def _patterns(result: Result, kind: str, folder: Path) -> Picture:
    shown, habits = result["shown"][kind], result["attention"][kind]["habits"]
    layers, heads = len(shown["pattern"]), len(shown["pattern"][0])
    figure = matplotlib_figure(2.6 * heads + 0.6, 2.6 * layers + 0.4)
    grid = figure.subplots(layers, heads, squeeze=False)
    for layer in range(layers):
        for head in range(heads):
            axes = grid[layer][head]
            axes.imshow(shown["pattern"][layer][head], cmap="Blues", vmin=0, vmax=1, aspect="auto")
            entropy, distance = habits["entropy"][layer][head], habits["distance"][layer][head]
            axes.set_title(f"{layer + 1}.{head + 1}: entropy {entropy:.2f}, distance {distance:.1f}", fontsize=8)
            across = shown["keys"] if layer == layers - 1 else []
            down = shown["queries"] if head == 0 else []
            axes.set_xticks(range(len(across)), across, rotation=90, fontsize=7)
            axes.set_yticks(range(len(down)), down, fontsize=7)
            for text in (*axes.get_xticklabels(), *axes.get_yticklabels()):
                text.set_parse_math(False)
    whose = "cross-attention: rows are words as they are written" if kind == "cross-attention" else "encoder"
    caption = (
        f"The shipped translator's {whose}, columns are what is looked at; one sentence, white 0 to blue 1. Above each "
        "layer.head: mean entropy as a share of that of looking everywhere alike, and mean distance in tokens, over "
        f"{result['attention'][kind]['sentences']} sentences (one network, no seeds)."
    )
    return save_figure(figure, folder, f"heads-{kind}", caption)


def _habits(result: Result, folder: Path) -> Picture:
    figure = matplotlib_figure(7, 4.5)
    axes = figure.subplots()
    for kind, each in result["attention"].items():
        label, color, marker = _SOURCES[kind]
        entropy = [value for layer in each["habits"]["entropy"] for value in layer]
        distance = [value for layer in each["habits"]["distance"] for value in layer]
        axes.plot(distance, entropy, marker, color=color, label=f"{label} ({len(entropy)} heads)")
    axes.set(xlabel="mean distance (tokens)", ylabel="entropy / that of looking everywhere alike", ylim=(-0.03, 1.03))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    sentences = ", ".join(f"{_SOURCES[kind][0]} {each['sentences']}" for kind, each in result["attention"].items())
    caption = (
        "How widely (a share) and how far (in tokens) each head looks, means over the tokens of so many sentences: "
        f"{sentences}. One network each, no seeds."
    )
    return save_figure(figure, folder, "heads-habits", caption)


def _relations(result: Result, folder: Path) -> Picture:
    rows = [
        (f"{name}\n{_SOURCES[kind][0]}, n = {found['n']}", found)
        for kind, each in result["attention"].items()
        if kind != "untrained"
        for name, found in each["relations"].items()
    ]
    figure = matplotlib_figure(8, 1 + 0.55 * len(rows))
    axes = figure.subplots()
    for place, (_, found) in enumerate(rows):
        for shift, key, color in ((-0.18, "head_only", "C0"), (0.18, "offset_only", "0.6")):
            share, low, high = shares(found, key)
            label = {"head_only": "best head", "offset_only": "best fixed offset"}[key] if place == 0 else None
            axes.barh(place + shift, 100 * share, 0.34, color=color, label=label)
            bars = [[100 * (share - low)], [100 * (high - share)]]
            axes.errorbar(100 * share, place + shift, xerr=bars, color="0.2", capsize=2)
    axes.set_yticks(range(len(rows)), [label for label, _ in rows], fontsize=8)
    axes.invert_yaxis()
    axes.set(xlabel="instances where it points at the right word (%)", xlim=(0, 100))
    axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    caption = (
        "How often the most attention of a relation's first word, among all other words, goes to the second: the best "
        "head and the best fixed offset, each chosen on the other half of the sentences; bars are Wilson intervals of "
        "95 %, n are hand-labelled pairs of words."
    )
    return save_figure(figure, folder, "heads-relations", caption)


def shares(found: dict[str, Any], key: str) -> tuple[float, float, float]:
    """How often the head ("head_only") or the offset ("offset_only") is right, and the Wilson interval of 95 %."""
    right = found["both"] + found[key]
    interval = wilson(right, found["n"])
    return right / found["n"], interval.low, interval.high
