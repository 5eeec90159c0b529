"""Folders of Hugging Face, without its library: whole rounds, and everything that can be wrong with a folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from glassformer.checkpoints import huggingface
from glassformer.checkpoints.files import write_stream
from glassformer.checkpoints.huggingface import read_folder, read_network, write_folder
from glassformer.checkpoints.maps import MAPS
from glassformer.errors import InputError
from glassformer.layers.int8 import int8
from glassformer.models.config import Classification, Config, Learned, MaskedLM, Rotary, Sentence, Spans, Tagging
from glassformer.models.decoder import Decoder
from glassformer.models.encoder import Encoder
from glassformer.text.pipeline import TextPipeline
from glassformer.text.tokenizer import Tokenizer

TOKENIZER = Tokenizer.train(["the quick brown fox jumps over the lazy dog"], "character", 39, 1)
PLAIN = TextPipeline(unicode="none")
SHAPE = {"vocab_size": 40, "d_model": 12, "n_heads": 3, "d_ff": 20, "max_length": 16, "scale_embedding": False}
STACK = {**SHAPE, "n_encoder_layers": 2, "n_decoder_layers": 0, "positions": Learned(), "activation": "gelu"}
BERT = Config(**STACK, embedding_norm=True, n_segments=2, head_bias=True, head=MaskedLM(), norm_eps=1e-12)
CAUSAL = {**SHAPE, "n_encoder_layers": 0, "n_decoder_layers": 2, "norm_first": True}
GPT2 = Config(**CAUSAL, positions=Learned(), activation="gelu_tanh", attention_dropout=0.1)
LLAMA = Config(
    **CAUSAL, positions=Rotary(5e4), norm="rms", gated=True, activation="silu", bias=False, n_kv_heads=1, dropout=0.0
)
CONFIGS = {
    "words": BERT,
    "labels": replace(BERT, head=Classification(("no", "yes", "who knows")), pooler=True, head_bias=False),
    "tags": replace(BERT, head=Tagging(("O", "B")), head_bias=False),
    "spans": replace(BERT, head=Spans(), head_bias=False),
    "mean": replace(BERT, head=Sentence("mean", True, 8), head_bias=False),
    "cls": replace(BERT, head=Sentence("cls", False), pooler=True, head_bias=False, eos_id=5, pad_id=3),
    "gpt2": GPT2,
    "gpt2 untied": replace(GPT2, tie_head=False, scale_scores=False, d_ff=48, pad_id=7, init_std=0.1),
    "llama": LLAMA,
    "llama wide": replace(LLAMA, tie_head=False, d_head=8, n_kv_heads=None, bias=True),
}
TASKS = {"words": "fill", "labels": "classification", "tags": "tagging", "spans": "spans", "mean": "embedding"}


def network_of(config: Config) -> nn.Module:
    """A network whose weights all differ, in evaluation mode."""
    torch.manual_seed(0)
    network = (Encoder if config.n_encoder_layers else Decoder)(config).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_()
    return network


def written(folder: Path, config: Config = LLAMA, pipeline: TextPipeline = PLAIN, **options: Any) -> Path:
    return write_folder(folder / "model", network_of(config), TOKENIZER, pipeline, **options)


def edit(folder: Path, name: str = "config.json", **changes: Any) -> None:
    """Change keys of a JSON file; a change to `...` takes the key away."""
    path = folder / name
    content = json.loads(path.read_text()) if path.is_file() else {}
    content = {key: value for key, value in {**content, **changes}.items() if value is not ...}
    path.write_text(json.dumps(content))


def edit_tensors(folder: Path, change: Callable[[dict[str, Tensor]], Any]) -> None:
    path = folder / "model.safetensors"
    tensors = safetensors.torch.load_file(path)
    change(tensors)
    safetensors.torch.save_file(tensors, path)


# --- Whole rounds ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CONFIGS)
def test_a_round_changes_nothing(name: str, tmp_path: Path) -> None:
    network = network_of(CONFIGS[name])
    folder = write_folder(tmp_path / "a" / "model", network, TOKENIZER, PLAIN)
    held = read_folder(folder)
    assert held.config == CONFIGS[name] == held.network.config
    assert held.task == TASKS.get(name, "embedding" if name == "cls" else "generation")
    assert held.pipeline == PLAIN and held.tokenizer == TOKENIZER and held.extra == {}
    assert not held.network.training
    for (key, tensor), (other, expected) in zip(
        held.network.state_dict().items(), network.state_dict().items(), strict=True
    ):
        assert key == other and torch.equal(tensor, expected)
    again = write_folder(tmp_path / "again", held.network, held.tokenizer, held.pipeline)
    for path in folder.rglob("*"):
        assert path.is_dir() or path.read_bytes() == (again / path.relative_to(folder)).read_bytes(), path.name


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_shape_goes_round(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    base = data.draw(st.sampled_from([BERT, GPT2, LLAMA]))
    heads = data.draw(st.sampled_from([1, 2, 3, 4, 6]))
    changes: dict[str, Any] = {
        "n_heads": heads,
        "d_model": 2 * heads * data.draw(st.integers(1, 3)),
        "d_ff": data.draw(st.integers(1, 9)),
        "vocab_size": data.draw(st.integers(39, 45)),
        "max_length": data.draw(st.integers(1, 9)),
        "activation": data.draw(st.sampled_from(["relu", "gelu", "gelu_tanh", "silu"])),
        "norm_eps": data.draw(st.sampled_from([1e-12, 1e-6, 1e-5, 0.3])),
    }
    if base is LLAMA:
        changes["n_kv_heads"] = data.draw(st.sampled_from([None, *(n for n in range(1, heads) if heads % n == 0)]))
        changes["d_head"] = data.draw(st.sampled_from([None, 26]))
    network = network_of(replace(base, **changes))
    folder = write_folder(tmp_path_factory.mktemp("round") / "model", network, TOKENIZER, PLAIN)
    again = read_network(folder)
    assert again.config == network.config
    assert all(torch.equal(*pair) for pair in zip(again.parameters(), network.parameters(), strict=True))


def test_what_is_stored(tmp_path: Path) -> None:
    folder = written(tmp_path, CONFIGS["words"], dtype=torch.float16)
    with safetensors.safe_open(folder / "model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}
        assert "cls.predictions.decoder.weight" not in list(file.keys())  # tied, so stored once
        assert file.get_tensor("bert.embeddings.word_embeddings.weight").dtype == torch.float16
    assert json.loads((folder / "config.json").read_text())["torch_dtype"] == "float16"
    assert next(read_network(folder).parameters()).dtype == torch.float32


def test_the_text_side(tmp_path: Path) -> None:
    """A chat template, several ends of a text, and a pipeline that others do not have."""
    pipeline = TextPipeline(unicode="NFC", lowercase=True, chat_template="{{ messages }}")
    folder = written(tmp_path, LLAMA, pipeline, eos_ids=(2, 9))
    held = read_folder(folder)
    assert held.pipeline == pipeline and held.extra == {"eos_ids": [2, 9]} and held.config == LLAMA
    assert json.loads((folder / "tokenizer_config.json").read_text())["chat_template"] == "{{ messages }}"
    assert json.loads((folder / "generation_config.json").read_text()) == {
        "bos_token_id": 1,
        "eos_token_id": [2, 9],
        "pad_token_id": 0,
    }
    (folder / "chat_template.jinja").write_text("another")
    assert read_folder(folder).pipeline.chat_template == "another"


def test_special_ids_come_from_either_file(tmp_path: Path) -> None:
    folder = written(tmp_path)
    edit(folder, pad_token_id=None, eos_token_id=[5, 6])
    edit(folder, "generation_config.json", eos_token_id=None, pad_token_id=None, bos_token_id=8)
    held = read_folder(folder)
    assert (held.config.bos_id, held.config.eos_id, held.config.pad_id) == (8, 5, 5)  # padding is never seen
    assert held.extra == {"eos_ids": [5, 6]}
    (folder / "generation_config.json").unlink()
    assert read_folder(folder).config.bos_id == 1


def test_a_larger_vocabulary_than_the_tokenizers_is_fine(tmp_path: Path) -> None:
    assert read_folder(written(tmp_path, replace(LLAMA, vocab_size=64))).config.vocab_size == 64


def test_defaults_of_a_short_config(tmp_path: Path) -> None:
    """What config.json leaves out is as in transformers."""
    folder = written(tmp_path, replace(LLAMA, n_kv_heads=None, tie_head=False))
    for key in ("architectures", "num_key_value_heads", "head_dim", "rope_theta", "hidden_act", "attention_bias"):
        edit(folder, **{key: ...})
    for key in ("mlp_bias", "tie_word_embeddings", "initializer_range", "rms_norm_eps", "bos_token_id"):
        edit(folder, **{key: ...})
    config = read_network(folder).config
    assert config == replace(LLAMA, n_kv_heads=None, tie_head=False, positions=Rotary(1e4), norm_eps=1e-6)


@pytest.mark.parametrize(
    "rope", [{"rope_theta": 77.0}, {"rope_parameters": {"rope_type": "default", "rope_theta": 77}}]
)
def test_the_base_of_the_rotation(rope: dict[str, Any], tmp_path: Path) -> None:
    folder = written(tmp_path)
    edit(folder, **{"rope_theta": ..., "rope_scaling": None, **rope})
    assert read_network(folder).config.positions == Rotary(77.0)


def test_sentence_transformers(tmp_path: Path) -> None:
    folder = written(tmp_path, CONFIGS["mean"])
    assert [module["path"] for module in json.loads((folder / "modules.json").read_text())] == [
        "",
        "1_Pooling",
        "2_Normalize",
    ]
    edit(folder, "1_Pooling/config.json", pooling_mode_mean_tokens=False, pooling_mode_cls_token=True)
    edit(folder, "sentence_bert_config.json", max_seq_length=16, do_lower_case=True)
    held = read_folder(folder)
    assert held.config.head == Sentence("cls", True, None) and held.pipeline.lowercase
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode": "mean"}')
    assert read_network(folder).config.head.pooling == "mean"
    (folder / "modules.json").unlink()
    assert read_folder(folder).config.head == Sentence("mean", normalize=False)
    assert not read_folder(folder).pipeline.lowercase


def test_shards(tmp_path: Path) -> None:
    folder = written(tmp_path)
    expected = read_network(folder).state_dict()
    shard(folder)
    for name, tensor in read_network(folder).state_dict().items():
        assert torch.equal(tensor, expected[name])


def shard(folder: Path, n: int = 3) -> dict[str, str]:
    """Cut the weights into files with an index, as large models come."""
    tensors = safetensors.torch.load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    places = {name: f"model-{number % n + 1:05}-of-{n:05}.safetensors" for number, name in enumerate(tensors)}
    for shard in set(places.values()):
        safetensors.torch.save_file({k: v for k, v in tensors.items() if places[k] == shard}, folder / shard)
    edit(folder, "model.safetensors.index.json", metadata={}, weight_map=places)
    return places


# --- Folders that cannot be read ------------------------------------------------------------------------------------


def refused(folder: Path, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_folder(folder)


SETTINGS: dict[str, tuple[Config, dict[str, Any], str]] = {
    "no type": (LLAMA, {"model_type": ...}, "'model_type' must be one of bart, bert, gpt2, llama"),
    "unknown type": (LLAMA, {"model_type": "lama"}, "got 'lama'. Did you mean 'llama'"),
    "scaled rotation": (LLAMA, {"rope_scaling": {"type": "linear", "factor": 2.0}}, "'rope_scaling': 'type'"),
    "newer scaling": (LLAMA, {"rope_parameters": {"rope_type": "yarn"}}, "'rope_parameters': 'rope_type'"),
    "rotation by layer": (LLAMA, {"rope_parameters": {"full_attention": {}}}, "'rope_parameters'"),
    "part rotated": (LLAMA, {"partial_rotary_factor": 0.5}, "'partial_rotary_factor'"),
    "attention bias": (LLAMA, {"attention_bias": True}, "'attention_bias'"),
    "window": (LLAMA, {"sliding_window": 4096}, "'sliding_window'"),
    "activation": (LLAMA, {"hidden_act": "quick_gelu"}, "'hidden_act' must be one of"),
    "class": (LLAMA, {"architectures": ["LlamaForSequenceClassification"]}, "'architectures'"),
    "quantised": (LLAMA, {"quantization_config": {"bits": 4}}, "'quantization_config'"),
    "text": (LLAMA, {"hidden_size": "12"}, "'hidden_size' must be a whole number, got '12'"),
    "truth": (LLAMA, {"num_hidden_layers": True}, "'num_hidden_layers' must be a whole number"),
    "tied": (LLAMA, {"tie_word_embeddings": 1}, "'tie_word_embeddings' must be true or false"),
    "many layers": (LLAMA, {"num_hidden_layers": 10**9}, "layers"),
    "wide": (LLAMA, {"intermediate_size": 10**15}, "memory"),
    "wider": (LLAMA, {"intermediate_size": 10**40}, "memory"),
    "long": (LLAMA, {"max_position_embeddings": 2**50}, "positions"),
    "pipeline": (LLAMA, {"text_pipeline": {"upper": True}}, "'text_pipeline': unknown key 'upper'"),
    "pipeline of text": (LLAMA, {"text_pipeline": "lower"}, "'text_pipeline' must be an object"),
    "scores": (GPT2, {"scale_attn_by_inverse_layer_idx": True}, "'scale_attn_by_inverse_layer_idx'"),
    "ears": (GPT2, {"add_cross_attention": True}, "'add_cross_attention'"),
    "head": (GPT2, {"architectures": ["GPT2DoubleHeadsModel"]}, "GPT2DoubleHeadsModel"),
    "distances": (BERT, {"position_embedding_type": "relative_key"}, "'position_embedding_type'"),
    "decoder": (BERT, {"is_decoder": True}, "'is_decoder'"),
    "choice": (BERT, {"architectures": ["BertForMultipleChoice"]}, "BertForMultipleChoice"),
    "no class": (BERT, {"architectures": [7]}, "'architectures' must name one of BertModel"),
    "several": (CONFIGS["labels"], {"problem_type": "multi_label_classification"}, "'problem_type'"),
    "labels": (CONFIGS["labels"], {"id2label": {"0": "no", "2": "yes"}}, "'id2label'"),
}


@pytest.mark.parametrize("config, changes, message", SETTINGS.values(), ids=SETTINGS.keys())
def test_a_setting_that_is_not_known_is_named(
    config: Config, changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    folder = written(tmp_path, config)
    edit(folder, **changes)
    refused(folder, message)
    refused(folder, "config.json|network|configuration")


@pytest.mark.parametrize("name", ["words", "labels", "mean", "gpt2 untied", "llama wide"])
def test_any_value_of_any_setting_is_read_or_refused(name: str, tmp_path: Path) -> None:
    folder = written(tmp_path, CONFIGS[name])
    whole = json.loads((folder / "config.json").read_text())
    for key in whole:
        for value in (None, -1, 0, 10**12, 1.5, "x", [None], {"0": 1}, True):
            edit(folder, **{**whole, key: value})
            try:
                read_network(folder)
            except InputError as error:
                assert "\n" not in str(error)


def test_tensors_that_do_not_fit_are_listed(tmp_path: Path) -> None:
    folder = written(tmp_path)

    def change(tensors: dict[str, Tensor]) -> None:
        del tensors["model.norm.weight"]
        tensors["model.layers.0.mlp.up_proj.weight"] = torch.zeros(12, 20)
        tensors["model.layers.0.self_attn.q_proj.bias"] = torch.zeros(12)
        tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.zeros(2)  # nothing to learn there

    edit_tensors(folder, change)
    with pytest.raises(InputError) as caught:
        read_folder(folder)
    message = str(caught.value)
    assert "1 missing: model.norm.weight [12]." in message
    assert "1 not part of such a network: model.layers.0.self_attn.q_proj.bias [12]." in message
    assert "1 of the wrong shape: model.layers.0.mlp.up_proj.weight must be [20, 12], is [12, 20]." in message


def test_a_long_list_is_cut(tmp_path: Path) -> None:
    folder = written(tmp_path)
    edit_tensors(folder, lambda tensors: [tensors.pop(name) for name in sorted(tensors)[:15]])
    refused(folder, r"15 missing: .* and 5 more\.")


def test_a_tied_head_with_other_numbers(tmp_path: Path) -> None:
    folder = written(tmp_path)
    name = "model.embed_tokens.weight"
    edit_tensors(folder, lambda tensors: tensors.update({"lm_head.weight": tensors[name].clone()}))
    read_folder(folder)
    edit_tensors(folder, lambda tensors: tensors["lm_head.weight"].add_(1))
    refused(folder, "'lm_head.weight' must hold the same numbers")


def test_an_untied_head_must_be_there(tmp_path: Path) -> None:
    folder = written(tmp_path)
    edit(folder, tie_word_embeddings=False)
    refused(folder, r"1 missing: lm_head.weight \[40, 12\]")


def test_weights_that_can_run_code_are_refused(tmp_path: Path) -> None:
    folder = written(tmp_path)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    refused(folder, r"pytorch_model.bin only, a format that can run code .*save_pretrained")
    (folder / "pytorch_model.bin").unlink()
    refused(folder, "has no weights: there is neither model.safetensors nor")


@pytest.mark.parametrize("size", [0, 7, 200, -1])
def test_cut_weights(size: int, tmp_path: Path) -> None:
    folder = written(tmp_path)
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:size])
    refused(folder, "model.safetensors is not a whole safetensors file")


@pytest.mark.parametrize("name", ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"])
def test_cut_files(name: str, tmp_path: Path) -> None:
    folder = written(tmp_path)
    (folder / name).write_bytes((folder / name).read_bytes()[:-3])
    refused(folder, "config.json|tokenizer")


SHARDS = ["../model.safetensors", "/etc/passwd", "a/b.safetensors", "..\\x.safetensors", "x.bin", "..", ""]


@pytest.mark.parametrize("name", SHARDS)
def test_a_shard_lies_in_the_folder(name: str, tmp_path: Path) -> None:
    folder = written(tmp_path)
    places = shard(folder)
    edit(folder, "model.safetensors.index.json", weight_map={**places, "model.norm.weight": name})
    refused(folder, "a shard must be a .safetensors file in the same folder")


def test_shards_that_do_not_fit_their_index(tmp_path: Path) -> None:
    folder = written(tmp_path)
    places = shard(folder)
    first, second, *_ = sorted(set(places.values()))
    wrong = next(name for name, place in places.items() if place == first)
    edit(folder, "model.safetensors.index.json", weight_map={**places, wrong: second})
    refused(folder, f"{second} must hold '{wrong}'")
    edit(folder, "model.safetensors.index.json", weight_map=places)
    (folder / first).unlink()
    refused(folder, f"{first}: the file is missing")
    edit(folder, "model.safetensors.index.json", weight_map=[1])
    refused(folder, "'weight_map'")


MODULES: dict[str, tuple[Any, str]] = {
    "a number": (3, "must be a list of modules"),
    "dense": ([{"type": "a.Transformer", "path": ""}, {"type": "a.Dense", "path": ""}], "got Transformer, Dense"),
    "outside": ([{"type": "a.Transformer", "path": ""}, {"type": "a.Pooling", "path": "../x"}], "in a folder beside"),
}


@pytest.mark.parametrize("modules, message", MODULES.values(), ids=MODULES.keys())
def test_modules_that_are_not_known(modules: Any, message: str, tmp_path: Path) -> None:
    folder = written(tmp_path, CONFIGS["mean"])
    (folder / "modules.json").write_text(json.dumps(modules))
    refused(folder, message)


def test_other_poolings_are_refused(tmp_path: Path) -> None:
    folder = written(tmp_path, CONFIGS["mean"])
    edit(folder, "1_Pooling/config.json", pooling_mode_max_tokens=True)
    refused(folder, "the pooling must be one of .* got pooling_mode_mean_tokens, pooling_mode_max_tokens")


def test_a_tokenizer_of_another_model(tmp_path: Path) -> None:
    folder = written(tmp_path)
    Tokenizer.train([chr(code) for code in range(300, 400)], "character", 90, 1).save(folder / "tokenizer.json")
    refused(folder, "the tokenizer must fit the network")


# --- Folders that cannot be written ---------------------------------------------------------------------------------

UNFIT: dict[str, tuple[Config, str]] = {
    "gated gpt2": (replace(GPT2, gated=True), "for gpt2, 'gated' must be False, got True. for llama, 'norm' must be"),
    "layer norm in llama": (replace(LLAMA, norm="layer"), "for llama, 'norm' must be 'rms', got 'layer'"),
    "shared keys in gpt2": (replace(GPT2, n_kv_heads=1), "for gpt2, 'n_kv_heads' must be 'n_heads'"),
    "scaled embedding": (replace(LLAMA, scale_embedding=True), "'scale_embedding' must be False"),
    "wide heads in bert": (replace(BERT, d_head=8), "for bert, 'd_head' must be"),
    "no segments": (replace(BERT, n_segments=0), "'n_segments' must be at least 1"),
    "no bias of words": (replace(BERT, head_bias=False), "'head_bias' must be True"),
    "labels without pooler": (replace(CONFIGS["labels"], pooler=False), "'pooler' must be True"),
    "sinusoids": (Config(**{**CAUSAL, "scale_embedding": False}), "'positions' must be"),
}


@pytest.mark.parametrize("config, message", UNFIT.values(), ids=UNFIT.keys())
def test_a_network_that_no_architecture_holds(config: Config, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        written(tmp_path, config)
    assert not any(tmp_path.iterdir())


def test_nothing_is_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, *_: Any, **__: Any) -> str:
        write_stream(path, [b"some"])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(huggingface, "write_tensors", full)
    with pytest.raises(OSError, match="No space"):
        written(tmp_path)
    assert not any(tmp_path.iterdir())


def test_what_is_there_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    folder = written(tmp_path)  # an empty folder is taken
    before = (folder / "model.safetensors").read_bytes()
    (tmp_path / "model.partial").mkdir()  # left by a write that was killed
    with pytest.raises(InputError, match="must be new or an empty folder"):
        written(tmp_path, GPT2)
    assert (folder / "model.safetensors").read_bytes() == before


def test_leftovers_of_a_killed_write_are_replaced(tmp_path: Path) -> None:
    (tmp_path / "model.partial").mkdir()
    (tmp_path / "model.partial" / "model.bin").write_text("half")
    assert not (written(tmp_path) / "model.bin").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_copies_for_running_and_foreign_tokenizers_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="running only"):
        write_folder(tmp_path / "m", int8(network_of(LLAMA)), TOKENIZER, PLAIN)
    with pytest.raises(InputError, match="tokens, the network only 20"):
        written(tmp_path, replace(LLAMA, vocab_size=20))


@pytest.mark.parametrize("name", MAPS)
def test_maps_are_listed_by_their_type(name: str) -> None:
    assert MAPS[name].model_type == name
