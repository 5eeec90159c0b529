"""Characters of tiny-shakespeare in the time that nanoGPT's CPU setting takes, on the same cores, in one run.

    python benchmarks/shakespeare.py [--json] [--data-root DATA]

First peers/nanogpt.py trains its 4×128 GPT for 2,000 steps. Then `glassformer train recipes/shakespeare-char.toml` gets
as much time. The two clocks differ, to our disadvantage: nanoGPT's runs from its built model to its last step (with its
own estimates of the loss), ours over the whole life of the process: start, reading, compiling (from an empty cache),
training, evaluations, writing the model. `--reserve` seconds are kept for what does not count as training's minutes.

Both are judged on the whole last 10 % of the text, each character scored once: nanoGPT in windows of its context side
by side, ours by `glassformer evaluate RUN --split valid`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from goals import ROOT, Goal, data_root
from machine import machine_limits
from rounds import machine_lines

LOSS = Goal(1.65, 1.57, at_most=True)
PUBLISHED, WITHIN = 1.88, 0.03


def nanogpt(text: Path, threads: int, extra: Sequence[str] = ()) -> dict[str, Any]:
    """The peer, trained and measured."""
    script = ROOT / "benchmarks" / "peers" / "nanogpt.py"
    command = [sys.executable, str(script), "--data", str(text), "--threads", str(threads), *extra]
    found: dict[str, Any] = json.loads(output(command, {"OMP_NUM_THREADS": str(threads)}))
    return {**found, "as_published": abs(found["valid_loss"] - PUBLISHED) <= WITHIN}


def ours(given: argparse.Namespace, root: Path, run: Path, seconds: float) -> dict[str, Any]:
    """Train for about so many seconds, all in all, and measure."""
    glassformer = [sys.executable, "-m", "glassformer"]
    minutes = max(seconds - given.reserve, 1.0) / 60
    train = [*glassformer, "train", given.recipe, "--training.minutes", f"{minutes:.5f}"]
    for change in given.set:
        key, _, value = change.partition("=")
        train += [f"--{key}", value]
    train += ["--data-root", str(root), "--run", str(run)]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as empty:
        environment = {
            "OMP_NUM_THREADS": str(given.threads),
            "TORCHINDUCTOR_CACHE_DIR": f"{empty}/torch",
            "GLASSFORMER_CACHE": f"{empty}/glassformer",
        }
        begin = time.perf_counter()
        output(train, environment)
        taken = time.perf_counter() - begin
        evaluate = [*glassformer, "evaluate", str(run), "--split", "valid", "--json", "--data-root", str(root)]
        scores: dict[str, Any] = json.loads(output(evaluate, environment))
    if not isinstance(scores.get("loss"), float):
        raise RuntimeError(f"glassformer evaluate gave no loss: {scores}")
    return {**scores, "recipe": given.recipe, "seconds": taken, "minutes_of_training": minutes}


def output(command: Sequence[str], environment: Mapping[str, str]) -> str:
    """What a command writes to standard output; its messages go on to ours. `RuntimeError` where it fails."""
    print("$ " + " ".join(command[1:]), file=sys.stderr, flush=True)
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env={**os.environ, **environment})
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[1:])}: ended with {done.returncode}")
    return done.stdout


def compare(given: argparse.Namespace) -> dict[str, Any]:
    """Everything that is measured, as plain values."""
    root = data_root(given.data_root)
    text = None if root is None else root / "tinyshakespeare" / "input.txt"
    if root is None or text is None or not text.is_file():
        raise SystemExit("error: no tinyshakespeare/input.txt; give --data-root (docs/data.md says where it is from).")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        peer = nanogpt(text, given.threads)
        own = ours(given, root.resolve(), given.run or Path(folder) / "shakespeare-char", peer["seconds"])
    return {"nanogpt": peer, "ours": own, **judged(peer, own), "machine": machine_limits(given.threads)}


def judged(peer: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Both against each other, and ours beside what the issue asks for."""
    ratio = own["seconds"] / peer["seconds"]
    return {
        "time_ratio": ratio,
        "in_time": ratio <= 1,
        "loss": LOSS.judged({"median": own["loss"]}),
        "loss_below_nanogpt": peer["whole_valid_loss"] - own["loss"],
    }


def lines(result: Mapping[str, Any]) -> list[str]:
    """The report for people."""
    peer, own, loss = result["nanogpt"], result["ours"], result["loss"]
    published = "as published" if peer["as_published"] else "not as published"
    in_time = "in its time" if result["in_time"] else "longer than it took: train for less, with --reserve"
    return [
        *machine_lines(result["machine"]),
        "tiny-shakespeare, nats a character over the whole last 10 %:",
        f"  nanoGPT  {peer['whole_valid_loss']:.4f} after {peer['seconds']:.1f} s; by its own estimate "
        f"{peer['valid_loss']:.4f}, {published} ({PUBLISHED} ± {WITHIN})",
        f"  ours     {own['loss']:.4f} after {own['seconds']:.1f} s, {result['time_ratio']:.2f}× its time: {in_time}",
        f"  floor ≤ {loss['floor']:g}, goal {loss['goal']:g}: {loss['reached']}; "
        f"{result['loss_below_nanogpt']:.3f} below nanoGPT",
    ]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", type=Path, help="holds tinyshakespeare/; ../shared/data where that is there")
    parser.add_argument("--recipe", default=str(ROOT / "recipes" / "shakespeare-char.toml"))
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a recipe's key, changed")
    parser.add_argument("--reserve", type=float, default=8.0, help="seconds for starting and finishing the process")
    parser.add_argument("--run", type=Path, help="keep our run in this folder, which must be new")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def main() -> None:
    given = arguments()
    result = compare(given)
    print(json.dumps(result, indent=2) if given.json else "\n".join(lines(result)))


if __name__ == "__main__":
    main()
