"""SST-2 by fine-tuning: settings that are compared get as many trials each, chosen on dev; then 3 seeds, test once.

    python benchmarks/sst2.py --settings full lora [--json] [--data-root DATA] [--runs runs/sst2-search]
    python benchmarks/sst2.py --settings pretrained scratch --wiki runs/wiki-bert [--steps 650 1300]

`full` trains all weights of all-minilm-l6-v2, `lora` low-rank layers and the head; `pretrained` begins with a BERT of
one's own (recipes/wiki-bert.toml), `scratch` with its shape and tokenizer and fresh weights. Both read the label off
the mean of all states: a masked language model has taught the first one nothing. A trial is a learning rate and, of
`--steps`, how long it is trained, with seed 1; the best on dev is trained with seeds 1, 2 and 3, and these three models
alone see the test part. Bag-of-words
logistic regression (its strength chosen on dev from as many values) stands beside them.

What is done already in the runs' folder is not done again: the search may be stopped and begun anew. So a search with
other keys (`--set`) wants another folder.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from goals import ROOT, data_root

RATES = {
    "full": (5e-5, 1e-4, 2e-4, 4e-4),
    "lora": (5e-4, 1e-3, 2e-3, 4e-3),
    "pretrained": (2e-4, 4e-4, 8e-4),
    "scratch": (2e-4, 4e-4, 8e-4),
}
SEEDS = (1, 2, 3)
STEPS = 650
"""Of the recipe."""

Choice = tuple[float, int]
"""A trial's learning rate and steps."""

STRENGTHS = (0.01, 0.1, 1.0, 10.0)


def changes(setting: str, wiki: Path) -> dict[str, Any]:
    """Keys of the recipe that make a setting."""
    if setting == "lora":
        return {"finetune.lora": 6, "finetune.layer_decay": 1.0}
    own = {"finetune.model": str(wiki), "model.pooling": "mean"}
    if setting == "pretrained":
        return own
    if setting == "scratch":
        return {**own, "finetune.fresh": "true", "finetune.layer_decay": 1.0}
    return {}


def glassformer(*arguments: str) -> str:
    """What a command of ours writes to standard output. `RuntimeError` where it fails."""
    command = [sys.executable, "-m", "glassformer", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(arguments)}: {done.stderr[-2000:]}")
    return done.stdout


def trained(setting: str, choice: Choice, seed: int, given: argparse.Namespace, root: Path) -> dict[str, Any]:
    """One model: its folder, its accuracy on dev, and the seconds that it took."""
    rate, steps = choice
    run = given.runs / (f"{setting}-{rate:g}-{seed}" + (f"-{steps}" if steps != STEPS else ""))
    result = run / "trial.json"
    if not result.is_file():
        keys = {"training.learning_rate": rate, "training.seed": seed, **changes(setting, given.wiki)}
        if steps != STEPS:  # evaluated as often, and warmed up for the same share
            keys |= {"training.steps": steps, "training.evaluate_every": steps // 5, "training.warmup": steps // 10}
        overrides = [part for key, value in keys.items() for part in (f"--{key}", str(value))]
        for change in given.set:
            key, _, value = change.partition("=")
            overrides += [f"--{key}", value]
        began = time.perf_counter()
        if (run / "recipe.toml").is_file():
            glassformer("train", "--resume", str(run), "--data-root", str(root))
        else:
            recipe = str(ROOT / "recipes" / "sst2.toml")
            glassformer("finetune", recipe, *overrides, "--run", str(run), "--data-root", str(root))
        scores = json.loads((run / "glassformer.json").read_text())["extra"]
        dev = {"run": str(run), "dev": scores["valid_accuracy"], "seconds": time.perf_counter() - began}
        result.write_text(json.dumps(dev))
    found: dict[str, Any] = json.loads(result.read_text())
    print(
        f"  {setting} {rate:g}, {steps} steps, seed {seed}: dev {100 * found['dev']:.2f}", file=sys.stderr, flush=True
    )
    return found


def tested(trial: dict[str, Any], root: Path) -> dict[str, Any]:
    """The trial with its test accuracy, measured once."""
    path = Path(trial["run"]) / "test.json"
    if not path.is_file():
        path.write_text(glassformer("evaluate", trial["run"], "--split", "test", "--json", "--data-root", str(root)))
    return {**trial, "test": json.loads(path.read_text())}


def searched(setting: str, given: argparse.Namespace, root: Path) -> dict[str, Any]:
    """All trials of a setting, and the three models of the best of them."""
    choices = [(rate, steps) for steps in given.steps for rate in RATES[setting]]
    trials = {choice: trained(setting, choice, SEEDS[0], given, root) for choice in choices}
    best = max(trials, key=lambda choice: trials[choice]["dev"])
    models = [tested(trained(setting, best, seed, given, root), root) for seed in SEEDS]
    test = [100 * model["test"]["accuracy"] for model in models]
    return {
        "trials": {f"{rate:g}, {steps} steps": 100 * trial["dev"] for (rate, steps), trial in trials.items()},
        "learning_rate": best[0],
        "steps": best[1],
        "dev": [100 * model["dev"] for model in models],
        "test": test,
        "test_mean": statistics.mean(test),
        "test_spread": statistics.stdev(test),
        "seconds_a_model": statistics.mean(model["seconds"] for model in models),
        "n_test": models[0]["test"]["n"],
    }


def bag_of_words(root: Path) -> dict[str, Any]:
    """Logistic regression on counts of words and pairs of words."""
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression

    texts, labels = {}, {}
    for split in ("train", "dev", "test"):
        lines = (root / "sst2" / f"{split}.tsv").read_text(encoding="utf-8").splitlines()
        rows = [line.rsplit("\t", 1) for line in lines]
        texts[split], labels[split] = [row[0] for row in rows], [row[1] for row in rows]
    words = CountVectorizer(ngram_range=(1, 2), token_pattern=r"\S+").fit(texts["train"])
    vectors = {split: words.transform(texts[split]) for split in texts}
    models = {
        strength: LogisticRegression(C=strength, max_iter=1000).fit(vectors["train"], labels["train"])
        for strength in STRENGTHS
    }
    dev = {strength: model.score(vectors["dev"], labels["dev"]) for strength, model in models.items()}
    best = max(dev, key=lambda strength: dev[strength])
    return {"strength": best, "dev": 100 * dev[best], "test": 100 * models[best].score(vectors["test"], labels["test"])}


def lines(result: dict[str, Any]) -> list[str]:
    """The report for people."""
    report = ["SST-2, accuracy in %: dev-chosen learning rate and steps, test of seeds 1, 2, 3, their mean"]
    for setting, found in result["settings"].items():
        tests = ", ".join(f"{value:.2f}" for value in found["test"])
        report.append(
            f"  {setting:<10}  {found['learning_rate']:g}, {found['steps']}  {tests}  mean {found['test_mean']:.2f} "
            f"± {found['test_spread']:.2f}  ({found['seconds_a_model']:.0f} s a model)"
        )
    words = result["bag_of_words"]
    report.append(f"  bag of words, logistic regression (C = {words['strength']:g})  {words['test']:.2f}")
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--settings", nargs="+", choices=list(RATES), default=["full", "lora"])
    parser.add_argument("--runs", type=Path, default=Path("runs/sst2-search"))
    parser.add_argument("--steps", nargs="+", type=int, default=[STEPS], help="how long, where that is searched too")
    parser.add_argument("--wiki", type=Path, default=Path("runs/wiki-bert"))
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a recipe's key, changed")
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    root = data_root(given.data_root)
    if root is None:
        raise SystemExit("error: no data; give --data-root (docs/data.md says where it is from).")
    found = {setting: searched(setting, given, root.resolve()) for setting in given.settings}
    result = {"settings": found, "bag_of_words": bag_of_words(root)}
    print(json.dumps(result, indent=2) if given.json else "\n".join(lines(result)))


if __name__ == "__main__":
    main()
