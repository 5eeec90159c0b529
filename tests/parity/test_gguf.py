"""GGUF files, as llama.cpp's converter writes them: our network against that of `transformers`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from parity.oracles import check_decoder, check_equal, model_of, rows, transformers

from glassformer.checkpoints.gguf import quantized_blocks, read_gguf
from glassformer.errors import InputError
from glassformer.tasks.model import Model

gguf: Any = pytest.importorskip("gguf", reason="the package gguf writes the files")

LETTERS = [chr(code) for code in range(ord("!"), ord("!") + 39)]
SHAPE = {"vocab_size": 43, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2}


def llama(**choices: Any) -> Any:
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64}
    config = transformers.LlamaConfig(**{**SHAPE, **heads, "rms_norm_eps": 1e-5, **choices})
    return model_of(transformers.LlamaForCausalLM, config)


def gpt2(**choices: Any) -> Any:
    config = transformers.GPT2Config(
        **{"vocab_size": 43, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 64, **choices}
    )
    return model_of(transformers.GPT2LMHeadModel, config)


def write(path: Path, model: Any, kind: str = "F32", change: Any = None) -> Path:
    """The model in a GGUF file; weights are quantised to `kind`, and `change` may add to what the file says."""
    config, name = model.config, model.config.model_type
    writer = gguf.GGUFWriter(path, name)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_head_count(config.num_attention_heads)
    writer.add_feed_forward_length(getattr(config, "intermediate_size", None) or 4 * config.hidden_size)
    if name == "llama":
        writer.add_head_count_kv(config.num_key_value_heads)
        writer.add_layer_norm_rms_eps(config.rms_norm_eps)
        writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
        writer.add_rope_dimension_count(config.head_dim)
    else:
        writer.add_layer_norm_eps(config.layer_norm_epsilon)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(["<|endoftext|>", "<|im_start|>", "<|im_end|>", *LETTERS, "AB"])
    writer.add_token_types([3] * 3 + [1] * 40)
    writer.add_token_merges(["A B"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_chat_template("{{ messages[0].content }}")
    tensors = stored(model)
    if change is not None:
        change(writer, tensors)
    for place, array in tensors.items():
        type_ = gguf.GGMLQuantizationType[kind if array.ndim == 2 and "position" not in place else "F32"]
        writer.add_tensor(place, gguf.quants.quantize(array, type_), raw_dtype=type_)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def stored(model: Any) -> dict[str, Any]:
    """A model's arrays as the converter stores them: its names, [out, in], rows of queries and keys in pairs."""
    config, name = model.config, model.config.model_type
    names = gguf.get_tensor_name_map(getattr(gguf.MODEL_ARCH, name.upper()), config.num_hidden_layers)
    found = {}
    for key, tensor in model.state_dict().items():
        if key == "lm_head.weight" and config.tie_word_embeddings:
            continue
        array = tensor.float().numpy()
        if ".c_" in key and key.endswith("weight"):
            array = array.T
        part = key.split(".")[-2]
        if part in ("q_proj", "k_proj"):
            heads = config.num_attention_heads if part == "q_proj" else config.num_key_value_heads
            array = array.reshape(heads, 2, -1, array.shape[1]).swapaxes(1, 2).reshape(array.shape)
        found[names.get_name(key, try_suffixes=(".weight", ".bias"))] = np.ascontiguousarray(array)
    return found


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("make", [llama, gpt2], ids=["llama", "gpt2"])
def test_network(make: Any, tied: bool, tmp_path: Path) -> None:
    theirs = make(tie_word_embeddings=tied)
    held = read_gguf(write(tmp_path / "model.gguf", theirs))
    check_decoder(held.network, theirs)
    assert held.task == "generation" and held.config.tie_head == tied
    assert (held.config.bos_id, held.config.eos_id, held.config.pad_id) == (1, 2, 2)
    assert held.config.norm_eps == 1e-5
    assert held.tokenizer.encode("ABBA") == [42, held.tokenizer.id_of("B"), held.tokenizer.id_of("A")]
    assert held.pipeline.chat_template == "{{ messages[0].content }}"
    assert "eos_ids" not in held.extra


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0", "Q4_1"])
@pytest.mark.parametrize("make", [llama, gpt2], ids=["llama", "gpt2"])
def test_blocks(make: Any, kind: str, tmp_path: Path) -> None:
    """Each block belongs to the numbers of our parameter at its place, and the network is the quantised one."""
    theirs = make()
    path = write(tmp_path / "model.gguf", theirs, kind)
    held, blocks = read_gguf(path), quantized_blocks(path)
    weights = dict(held.network.named_parameters())
    assert {name for name, weight in weights.items() if weight.dim() == 2 and "position" not in name} == set(blocks)
    for name, (stored_kind, block) in blocks.items():
        assert stored_kind == kind and block.dtype == torch.uint8
        assert block.shape[:2] == (len(weights[name]), weights[name].shape[1] // 32)
        dense = gguf.quants.dequantize(block.numpy().reshape(len(block), -1), gguf.GGMLQuantizationType[kind])
        assert torch.equal(torch.from_numpy(dense), weights[name].detach()), name
    rounded = make()
    with torch.no_grad():
        for name, parameter in rounded.named_parameters():
            transposed = ".c_" in name  # what is stored is a row's neighbours rounded together
            if parameter.dim() == 2 and "wpe" not in name:
                array = np.ascontiguousarray((parameter.t() if transposed else parameter).numpy())
                type_ = gguf.GGMLQuantizationType[kind]
                array = torch.from_numpy(gguf.quants.dequantize(gguf.quants.quantize(array, type_), type_))
                parameter.copy_(array.t() if transposed else array)
    ids, _ = rows(43)
    exact = Model.load(path, precision="fp32").network
    with torch.no_grad():
        check_equal(held.network(ids).logits, rounded(ids).logits)
        check_equal(exact(ids).logits, rounded(ids).logits, 5e-5)  # sums of d q and of m apart: 1 to 3 times as rough


@pytest.mark.parametrize("precision", ["stored", "fp32"])
@pytest.mark.parametrize("kind", ["F32", "F16", "Q5_0"])
def test_weights_of_other_kinds_are_not_rounded_further(kind: str, precision: Any, tmp_path: Path) -> None:
    path = write(tmp_path / "model.gguf", llama(), kind)
    running, plain = Model.load(path, precision=precision).network, read_gguf(path).network
    ids, _ = rows(43)
    with torch.no_grad():
        assert torch.equal(running(ids).logits, plain(ids).logits)


def test_ends_of_a_text(tmp_path: Path) -> None:
    path = write(tmp_path / "m.gguf", llama(), change=lambda writer, _: writer.add_eot_token_id(0))
    assert read_gguf(path).extra["eos_ids"] == [2, 0]


def drop(name: str) -> Any:
    return lambda _, tensors: tensors.pop(name)


BAD: dict[str, tuple[Any, str]] = {
    "missing": (drop("blk.1.ffn_up.weight"), r"1 missing: blk\.1\.ffn_up\.weight \[96, 64\]"),
    "no embedding": (drop("token_embd.weight"), r"token_embd\.weight"),
    "extra": (lambda _, t: t.update(extra=np.zeros(3, "f4")), r"1 not part of such a network: extra \[3\]"),
    "shape": (
        lambda _, t: t.update({"blk.0.attn_q.weight": np.zeros((32, 64), "f4")}),
        r"blk\.0\.attn_q\.weight must be \[64, 64\], is \[32, 64\]",
    ),
    "scaling": (lambda w, _: w.add_rope_scaling_type(gguf.RopeScalingType.YARN), r"'rope\.scaling\.type' must be"),
    "experts": (lambda w, _: w.add_expert_count(8), "'expert_count'"),
    "widths": (lambda w, _: w.add_value_length(8), r"'attention\.value_length'"),
}


@pytest.mark.parametrize("change, message", BAD.values(), ids=BAD.keys())
def test_what_does_not_fit_is_named(change: Any, message: str, tmp_path: Path) -> None:
    path = write(tmp_path / "m.gguf", llama(), change=change)
    for read in (read_gguf, quantized_blocks):
        with pytest.raises(InputError, match=message):
            read(path)


def test_unknown_architecture(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "lama")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with pytest.raises(InputError, match="one of llama, gpt2, got 'lama'. Did you mean 'llama'"):
        read_gguf(tmp_path / "m.gguf")
