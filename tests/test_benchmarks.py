"""The benchmarks' own arithmetic, what they read of peers' output, and that each says what it is for; nothing timed."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))


@pytest.mark.parametrize(
    "name", ["gpt_decoding", "gpt_start", "embedding", "patching", "uncertainty_cost", "banded", "serving"]
)
def test_help_works_from_any_folder(name: str, tmp_path: Path) -> None:
    command = [sys.executable, str(BENCHMARKS / f"{name}.py"), "--help"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "--rounds" in done.stdout and "--json" in done.stdout


def test_seconds_of_llama_bench() -> None:
    from peers.llama_cpp import bench_seconds

    assert bench_seconds(json.dumps([{"n_gen": 128, "avg_ns": 1, "samples_ns": [1_500_000_000]}])) == 1.5


def test_seconds_of_llama_batched_bench_among_other_lines() -> None:
    from peers.llama_cpp import batched_seconds

    line = json.dumps({"pp": 16, "tg": 64, "pl": 16, "t_pp": 1.25, "t_tg": 7.5, "speed_tg": 136.5})
    assert batched_seconds(f"llama_context: something\n{line}\n\n") == (1.25, 7.5)


def test_first_byte_needs_output_and_success() -> None:
    from peers.llama_cpp import seconds_to_first_byte

    slow = "import sys, time; print('a', flush=True); time.sleep(0.3)"
    assert seconds_to_first_byte([sys.executable, "-c", slow]) > 0
    for code in ("pass", "print('a'); raise SystemExit(1)"):
        with pytest.raises(RuntimeError, match="wrote nothing, or ended with"):
            seconds_to_first_byte([sys.executable, "-c", code])


def test_ratios_are_formed_round_by_round_and_judged_by_their_median() -> None:
    from goals import Goal, compared

    seconds = {"ours": [1.0, 2.0, 1.0], "peer": [1.5, 3.0, 4.0]}
    row = compared(seconds, "ours", "peer", Goal(1.2, 2.0))
    assert (row["median"], row["low"], row["high"]) == (1.5, 1.5, 4.0)
    assert row["reached"] == "floor met"


@pytest.mark.parametrize(("seconds", "reached"), [(6.0, "below the floor"), (4.0, "floor met"), (1.5, "goal met")])
def test_seconds_are_judged_from_above(seconds: float, reached: str) -> None:
    from goals import Goal

    assert Goal(5.0, 2.0, at_most=True).judged({"median": seconds})["reached"] == reached


def test_best_of_all_leaves_out_a_precision_whose_perplexity_is_off() -> None:
    from gpt_decoding import FILE_KIND, decode_rows

    seconds = {FILE_KIND: [2.0], "llama.cpp Q4_0": [1.5], "ours stored": [1.0], "ours int8": [0.5], "ours fp32": [3.0]}
    quality = {"of": {"ours fp32": 20.0, "ours stored": 20.05, "ours int8": 20.2}}
    found = decode_rows(seconds, ["ours stored", "ours int8", "ours fp32"], [FILE_KIND, "llama.cpp Q4_0"], quality)
    best = next(row for row in found if row["note"].startswith("best of all"))
    assert best["ours"] == "ours stored" and best["median"] == 2.0
    headline = next(row for row in found if row["note"] == "both sides' best")
    assert headline["theirs"] == "llama.cpp Q4_0" and headline["median"] == 1.5


def test_scores_are_set_beside_the_peers_own_one_by_one_and_as_figures() -> None:
    from uncertainty_peer import PAIRS, same

    from glassformer.studies.hallucination.signals import Column

    values = (1.0, 0.5, 2.0, 0.25)
    ours = [Column(name, "one pass", "a paper", tuple(range(4)), values) for name in PAIRS]
    theirs = {own: [value + (own == "RAUQ") for value in values] for own in PAIRS.values()}
    theirs["Perplexity"] = [1.0, 0.5, 2.5, 0.25]
    judged = {own: {"auroc": 1.0, "prr": 1.0} for own in theirs}
    judged["MeanTokenEntropy"] = {"auroc": 0.75, "prr": 1.0}
    rows = {row["theirs"]: row for row in same(ours, theirs, judged, [1, 0, 1, 0])}
    assert {name: row["reached"] for name, row in rows.items()} == {
        "MaximumSequenceProbability": "goal met",
        "Perplexity": "below the floor",
        "MeanTokenEntropy": "below the floor",
        "RAUQ": "goal met",
    }
    assert rows["Perplexity"]["largest_difference"] == 0.5 and rows["RAUQ"]["auroc"] == 1.0
