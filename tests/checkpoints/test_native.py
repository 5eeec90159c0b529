"""The native checkpoint: what is saved comes back; what is damaged, foreign or newer is refused by name."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import torch

from glassformer.checkpoints import native
from glassformer.checkpoints.families import families
from glassformer.checkpoints.files import checksum
from glassformer.checkpoints.native import INDEX, TOKENIZER, WEIGHTS, find, load, read_index, save
from glassformer.checkpoints.tensors import read_tensors
from glassformer.errors import InputError
from glassformer.models.config import Config, Learned
from glassformer.models.encoder_decoder import EncoderDecoder
from glassformer.text.pipeline import TextPipeline
from glassformer.text.tokenizer import Tokenizer

WORDS = "one two three four five six"
PIPELINE = TextPipeline(source="en", target="de", lowercase=True)


def tokenizer(words: str = WORDS) -> Tokenizer:
    return Tokenizer.train([words], kind="word", vocab_size=50, min_frequency=1)


def network(seed: int = 0, **fields: Any) -> EncoderDecoder:
    torch.manual_seed(seed)
    config = Config(
        vocab_size=10, d_model=16, n_heads=2, d_ff=24, n_encoder_layers=1, n_decoder_layers=2, max_length=32
    )
    return EncoderDecoder(replace(config, **fields)).eval()


def saved(folder: Path, seed: int = 0, **fields: Any) -> Path:
    return save(folder, network(seed, **fields), tokenizer(), PIPELINE, "translation", extra={"step": 3})


def logits(net: Any) -> torch.Tensor:
    with torch.no_grad():
        return net(torch.tensor([[4, 5, 6, 2]]), torch.tensor([[1, 7, 8]])).logits


def edit(folder: Path, change: Callable[[dict[str, Any]], Any], sign: bool = True) -> None:
    """Change glassformer.json, with a checksum that fits unless `sign` is False."""
    content = json.loads((folder / INDEX).read_text())
    change(content)
    if sign:
        content["checksum"] = checksum(content)
    (folder / INDEX).write_text(json.dumps(content))


@pytest.mark.parametrize(
    "fields",
    [{}, {"tie_head": False}, {"positions": Learned()}, {"norm_first": True, "d_head": 5}],
    ids=["tied", "untied", "learned", "pre-norm"],
)
def test_what_is_saved_comes_back(tmp_path: Path, fields: dict[str, Any]) -> None:
    before = torch.random.get_rng_state()
    loaded = load(saved(tmp_path / "model", **fields))
    net = network(**fields)
    assert torch.equal(logits(loaded.network), logits(net))
    assert loaded.config == net.config and not loaded.network.training
    assert loaded.pipeline == PIPELINE and loaded.tokenizer == tokenizer()
    assert loaded.task == "translation" and loaded.extra == {"step": 3}
    torch.random.set_rng_state(before)
    load(tmp_path / "model")
    assert torch.equal(torch.random.get_rng_state(), before)


def test_special_tokens_of_unusual_names_come_back(tmp_path: Path) -> None:
    backend = tokenizers.Tokenizer.from_str(tokenizer()._backend.to_str())
    named = Tokenizer(backend, specials={"eos": "six"})
    save(tmp_path, network(), named, PIPELINE, "translation")
    loaded = load(tmp_path).tokenizer
    assert (loaded.specials, loaded.special_ids) == (named.specials, named.special_ids)
    assert loaded.eos_id == named.id_of("six") != tokenizer().eos_id
    assert read_index(tmp_path).format == 5 and read_index(saved(tmp_path / "usual")).format == 1
    edit(tmp_path, lambda content: content.update(specials={"eos": "seven"}))
    with pytest.raises(InputError, match="eos token must be in the vocabulary"):
        load(tmp_path)


def test_a_tied_tensor_is_stored_once_and_stays_tied(tmp_path: Path) -> None:
    folder = saved(tmp_path)
    net = load(folder).network
    numbers = sum(tensor.numel() for tensor in read_tensors(folder / WEIGHTS).values())
    assert numbers == sum(parameter.numel() for parameter in network().parameters())
    assert any(parameter is net.head.weight for parameter in net.decoder.parameters())


def test_half_precision_halves_the_file_and_loads_as_fp32(tmp_path: Path) -> None:
    full = saved(tmp_path / "full")
    half = save(tmp_path / "half", network(), tokenizer(), PIPELINE, "translation", dtype=torch.float16)
    assert (half / WEIGHTS).stat().st_size < 0.7 * (full / WEIGHTS).stat().st_size
    net = load(half).network
    assert all(parameter.dtype == torch.float32 for parameter in net.parameters())
    torch.testing.assert_close(logits(net), logits(network()), rtol=0, atol=0.02)


@pytest.mark.parametrize("name", [INDEX, WEIGHTS, TOKENIZER])
@pytest.mark.parametrize("place", [0.02, 0.5, 0.97])
def test_a_changed_byte_anywhere_is_refused(tmp_path: Path, name: str, place: float) -> None:
    path = saved(tmp_path) / name
    content = bytearray(path.read_bytes())
    content[int(len(content) * place)] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match=str(path)):
        load(tmp_path)


@pytest.mark.parametrize("name", [INDEX, WEIGHTS, TOKENIZER])
@pytest.mark.parametrize("keep", [0.0, 0.5, 0.99])
def test_a_file_cut_short_is_refused(tmp_path: Path, name: str, keep: float) -> None:
    path = saved(tmp_path) / name
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(InputError, match=str(path)):
        load(tmp_path)


@pytest.mark.parametrize("name", [INDEX, WEIGHTS, TOKENIZER])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    (saved(tmp_path) / name).unlink()
    with pytest.raises(InputError, match=name):
        load(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(format=6), "has format 6; this version .* reads up to 5. Upgrade"),
        (lambda c: c.update(format=0), "'format' must be 1 or more"),
        (lambda c: c.update(famly="x"), "unknown key 'famly'. Did you mean 'family'"),
        (lambda c: c.update(family="encoder-decoder-x"), "Did you mean 'encoder-decoder'"),
        (lambda c: c.pop("task"), "the key 'task' is missing"),
        (lambda c: c["config"].update(d_modell=3), "unknown key 'd_modell'. Did you mean 'd_model'"),
        (lambda c: c["config"].update(d_model="wide"), "'d_model' must be int"),
        (lambda c: c["text"].update(lowercas=True), "unknown key 'lowercas'. Did you mean 'lowercase'"),
        (lambda c: c["config"].update(vocab_size=9), "vocabulary does not fit the network: .*10 tokens.*9"),
        (lambda c: c["config"].update(d_ff=25), r"must have the shape \[25, 16\] by its config, got \[24, 16\]"),
        (lambda c: c["config"].update(n_decoder_layers=3), "tensors are missing, the first is"),
        (lambda c: c["config"].update(n_decoder_layers=1), "do not belong to the network, the first is"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, change: Callable[[dict[str, Any]], Any], message: str) -> None:
    edit(saved(tmp_path), change)
    with pytest.raises(InputError, match=message):
        load(tmp_path)


def test_an_edited_index_is_refused_unless_its_checksum_is_taken_out(tmp_path: Path) -> None:
    folder = saved(tmp_path)
    edit(folder, lambda c: c["text"].update(lowercase=False), sign=False)
    with pytest.raises(InputError, match="changed after it was written"):
        load(folder)
    edit(folder, lambda c: c.pop("checksum"), sign=False)
    assert load(folder).pipeline.lowercase is False


class Killed(BaseException):
    """Stands for SIGKILL: nothing after it runs."""


@pytest.mark.parametrize("call", range(1, 12))
def test_saving_over_a_checkpoint_is_safe_at_every_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    """Until the index is replaced the old model is read, from then on the new one, never a mixture."""
    folder = saved(tmp_path / "model", seed=1)
    calls, settle, dead = 0, native._settle, False

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **keywords: Any) -> Any:
            nonlocal calls, dead
            calls += 1
            if calls == call:
                dead = True
                raise Killed
            return function(*arguments, **keywords)

        return wrapped

    with monkeypatch.context() as patch:
        for name in ("replace", "fsync"):
            patch.setattr(os, name, counted(getattr(os, name)))
        patch.setattr(native, "_settle", lambda folder: None if dead else settle(folder))
        try:
            saved(folder, seed=2)
        except Killed:
            assert dead
    read = logits(load(folder).network)
    assert torch.equal(read, logits(network(1))) or torch.equal(read, logits(network(2)))
    if not dead:
        assert torch.equal(read, logits(network(2)))
    saved(folder, seed=3)
    assert torch.equal(logits(load(folder).network), logits(network(3)))
    assert sorted(path.name for path in folder.iterdir()) == sorted([INDEX, WEIGHTS, TOKENIZER])


def test_a_full_disk_leaves_the_old_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = saved(tmp_path, seed=1)

    def full(path: Path, tensors: Any) -> str:
        path.write_bytes(b"part")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(native, "write_tensors", full)
        with pytest.raises(OSError, match="No space"):
            saved(folder, seed=2)
    assert torch.equal(logits(load(folder).network), logits(network(1)))
    assert len(list(folder.iterdir())) == 3


def test_a_network_of_no_known_family_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Linear is none of them"):
        save(tmp_path / "x", torch.nn.Linear(2, 2), tokenizer(), PIPELINE, "translation")
    assert "encoder-decoder" in families


def test_find_knows_folders_runs_and_shipped_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = saved(tmp_path / "model")
    assert find(folder) == folder and find(str(folder)) == folder
    run = tmp_path / "run"
    for step in (9, 10):
        saved(run / "checkpoints" / f"step-{step}")
    (run / "checkpoints" / ".step-11.partial").mkdir()
    assert find(run) == run / "checkpoints" / "step-10"
    monkeypatch.setattr(native, "weights_folder", lambda: tmp_path / "weights")
    with pytest.raises(InputError, match="known: none"):
        find("small")
    saved(tmp_path / "weights" / "small")
    assert find("small") == tmp_path / "weights" / "small"
    with pytest.raises(InputError, match=r"known: small\).*Did you mean 'small'"):
        find("smal")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no checkpoint"):
        find(tmp_path / "empty")
    (tmp_path / "young" / "checkpoints").mkdir(parents=True)
    with pytest.raises(InputError, match="has no checkpoint yet"):
        find(tmp_path / "young")
