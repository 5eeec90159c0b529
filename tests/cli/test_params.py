"""`glassformer params`: tables and JSON of sizes, folders and files."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from processes import run_inside

import glassformer as gf


def record(*arguments: object) -> dict:
    done = run_inside("params", *arguments, "--json")
    assert (done.code, done.err) == (0, "")
    return json.loads(done.out)


def test_the_largest_is_counted_without_torch() -> None:
    code = (
        "import sys; from glassformer.cli.main import main; main(['params', 'gpt3-175b', '--json']);"
        "sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0
    found = json.loads(done.stdout)
    assert found["total"] == 174_604_259_328
    assert found["memory"]["bf16"] == 2 * 174_604_259_328
    assert found["cache_bytes_per_token"]["bf16"] == 2 * 96 * 12_288 * 2
    weights = 2 * (96 * 12 * 12_288**2 + 50_257 * 12_288)
    assert found["flops"]["token"]["weights"] == weights
    assert found["flops"]["token"]["training"] == 3 * (weights + 48 * 4 * (2_048 + 256) * 12_288)


def test_the_table_adds_up() -> None:
    table = run_inside("params", "gpt2").out.splitlines()
    rows = {line.split("  ")[0]: line for line in table if line and not line.startswith(" ")}
    assert "124,439,808" in rows["total"] and "85,056,000" in rows["without embeddings"]
    assert "its matrix is the token embedding" in rows["head"]
    amounts = [int(rows[name].split()[-2].replace(",", "")) for name in ("embedding", "self-attention", "feed-forward")]
    assert sum(amounts) + 38_400 == 124_439_808
    assert "497.8 MB" in rows["weights"] and "fp32" in rows["memory"]
    assert "73.7 kB" in rows["keys and values, a token"]


def test_the_context_is_asked_for() -> None:
    short, long = (record("gpt2", "--context", n) for n in (1, 1024))
    assert long["flops"]["token"]["attention"] == 1024 * short["flops"]["token"]["attention"]
    assert long == record("gpt2")


def test_both_sides_of_an_encoder_decoder() -> None:
    assert set(record("t5-small")["flops"]) == {"source token", "target token"}
    table = run_inside("params", "t5-small").out
    assert "decoder cross-attention" in table and "a source token" in table


def test_without_a_name_all_sizes_are_listed() -> None:
    assert set(record()) == set(gf.sizes)
    assert "gpt3-13b-corrected" in run_inside("params").out


def test_a_folder_counts_as_its_network(tiny_decoder: Path, tiny_fill: Path) -> None:
    for folder in (tiny_decoder, tiny_fill):
        network = gf.load(folder).network
        assert record(folder)["total"] == sum(parameter.numel() for parameter in network.parameters())


def test_a_config_of_hugging_face_is_enough(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    transformers.GPT2Config(architectures=["GPT2LMHeadModel"]).save_pretrained(tmp_path)
    assert record(tmp_path)["total"] == 124_439_808
    (tmp_path / "config.json").write_text('{"model_type": "mystery"}', encoding="utf-8")
    done = run_inside("params", tmp_path)
    assert done.code == 2 and "mystery" in done.err


@pytest.mark.parametrize(
    ("arguments", "hint"), [(["gtp2"], "Did you mean 'gpt2'"), (["gpt2", "--context", "0"], "--context")]
)
def test_a_mistake_is_one_line(arguments: list[str], hint: str) -> None:
    done = run_inside("params", *arguments)
    assert (done.code, done.out) == (2, "") and done.err.count("\n") == 1
    assert hint in done.err
