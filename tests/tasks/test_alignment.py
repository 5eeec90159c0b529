"""Alignments are cross-attention as the model computes it; pictures show any script without a word on stderr."""

import builtins
import sys
import warnings
from pathlib import Path

import pytest
import torch

from glassformer.errors import InputError
from glassformer.layers.sites import record
from glassformer.tasks.alignment import Alignment, align, draw, draw_alignment
from glassformer.tasks.model import Model


def some_alignment(source: list[str], target: list[str]) -> Alignment:
    return Alignment(torch.full((len(target), len(source)), 1 / len(source)), tuple(source), tuple(target), 0)


def test_an_alignment_is_the_mean_of_the_heads(model: Model) -> None:
    found = align(model, "A dog runs .", "two women eat .")
    assert found.source == ("a", "dog", "runs", ".", "</s>")
    assert found.target == ("two", "women", "eat", ".", "</s>")
    assert found.layer == 1
    network, values = record(model.network, ["decoder.cross_attention.pattern[1]"])
    source, target = (model.tokenizer.encode(text) for text in ("a dog runs .", "two women eat ."))
    with torch.no_grad():
        network(torch.tensor([[*source, 2]]), torch.tensor([[1, *target]]))
    torch.testing.assert_close(found.pattern, values["decoder.cross_attention.pattern[1]"][0].mean(0))
    torch.testing.assert_close(found.pattern.sum(1), torch.ones(5))


def test_layers_differ_and_count_from_either_end(model: Model) -> None:
    first, last = align(model, "a dog runs .", "two women", layer=0), align(model, "a dog runs .", "two women")
    assert (first.layer, last.layer) == (0, 1)
    assert not torch.allclose(first.pattern, last.pattern)
    assert torch.equal(align(model, "a dog runs .", "two women", layer=-2).pattern, first.pattern)
    with pytest.raises(InputError, match="'layer' must be from 0 to 1"):
        align(model, "a dog", "a man", layer=2)


def test_its_own_translation_is_the_default(model: Model) -> None:
    result = model.translate("a dog runs .", beam=1)
    own, given = align(model, "a dog runs ."), align(model, "a dog runs .", result)
    assert own.target == given.target == tuple(model.tokenizer.tokens(result.ids))
    assert torch.equal(own.pattern, given.pattern)


def test_the_model_is_left_as_it_was(model: Model) -> None:
    model.network.train()
    align(model, "a dog runs .", "two women")
    assert model.network.training and model.network.decoder.training
    model.network.eval()


def test_sides_that_cannot_be_aligned(model: Model) -> None:
    with pytest.raises(InputError, match="the source to align must have from 1 to 23 tokens, got 0"):
        align(model, "", "a dog")
    with pytest.raises(InputError, match="the target to align must have from 1 to 23 tokens, got 30"):
        align(model, "a dog", "a " * 30)


def test_a_picture(model: Model, tmp_path: Path) -> None:
    path = draw_alignment(model, "a dog runs .", tmp_path / "new folder" / "picture.png", target="two women")
    assert path.read_bytes().startswith(b"\x89PNG")


def test_any_script_without_a_warning(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    scripts = ["▁Ein", "日本", "الثلاثاء", "ש", "२", "\u200f", "\u0301", "$", "_$x", " ", "\n", "\U0001f6b2", "x" * 40]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw([some_alignment(scripts, scripts[::-1]), some_alignment(["a"], ["b", "c"])], tmp_path / "picture.png")
    assert capfd.readouterr().err == ""


def test_labels() -> None:
    from glassformer.tasks.fonts import Lettering

    lettering = Lettering("abc \u0301\u200f\U0010ffff")
    shown = [lettering.label(token) for token in ("a b", "\u0301", "\u200f", "\U0010ffff", "x" * 20)]
    assert shown == ["a␣b", "◌\u0301", "U+200F", "U+10FFFF", "x" * 15 + "…"]


def test_a_picture_that_cannot_be_written(tmp_path: Path) -> None:
    alignment = some_alignment(["a"], ["b"])
    with pytest.raises(InputError, match=r"must end in \.png"):
        draw(alignment, tmp_path / "picture.jpeg2")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        draw(alignment, tmp_path / "file" / "picture.png")


def test_without_matplotlib_the_error_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: object) -> object:
        if name.split(".")[0] == "matplotlib":
            raise ImportError(name)
        return real(name, *rest)  # type: ignore[arg-type]

    monkeypatch.delitem(sys.modules, "glassformer.tasks.fonts", raising=False)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(InputError, match=r"glassformer\[plots\]"):
        draw(some_alignment(["a"], ["b"]), tmp_path / "picture.png")
