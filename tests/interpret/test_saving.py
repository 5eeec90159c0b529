"""Edits in files come back as they were, and act the same; what cannot be trusted or read is refused."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from interpret.all_families import case
from tasks.small_models import TEXT, model_of
from tasks.small_writers import writer
from torch import Tensor

import glassformer as gf
from glassformer.errors import InputError
from glassformer.text.pipeline import TextPipeline
from glassformer.text.tokenizer import Tokenizer

FACTS = gf.Facts(
    (gf.Fact("1", "blue shirt", "r", "a blue shirt on", ("x",)), gf.Fact("2", "man", "r", "the man in", ("x",)))
)


def halved(value: Tensor) -> Tensor:
    return value / 2


class Holder:
    @staticmethod
    def doubled(value: Tensor) -> Tensor:
        return value * 2

    def kept(self, value: Tensor) -> Tensor:
        return value


def logits(edits: Any, given: Any = FACTS) -> Tensor:
    return gf.trace(writer(), given, "logits", edits=edits)["logits"]


def edits_of_every_kind() -> list[Any]:
    model, swapped = writer(), FACTS.take([1, 0])
    return [
        gf.knockout("self_attention[0].head[1:3]", dst="end", src="subject"),
        gf.steer("residual_post[0] @ subject", torch.linspace(-1, 1, 32), scale=0.5),
        gf.patch("residual_mid[*] @ subject.last", gf.trace(model, swapped, "residual_mid[*] @ subject.last")),
        gf.patch("self_attention.query[1].head[0] @ end", torch.linspace(0, 1, 8)),
        gf.ablate("feed_forward.output[1] @ subject.last", to="mean", reference=FACTS),
        gf.ablate("feed_forward.output[0] @ end", to="mean", reference=["a man", "the bike on"]),
        gf.ablate("self_attention.output[1] @ 0", to="resample", seed=3),
        gf.ablate("feed_forward.hidden[1] @ end", to="zero"),
        gf.apply("norm_1.output[1] @ end", torch.nn.functional.relu),
        gf.apply("norm_2.output[1] @ end", Holder.doubled),
    ]


def test_every_kind_comes_back_and_acts_the_same(tmp_path: Path) -> None:
    edits = edits_of_every_kind()
    path = gf.save_edits(tmp_path / "edits", edits)
    assert path == tmp_path / "edits.json" and (tmp_path / "edits.safetensors").is_file()
    again = gf.load_edits(path, functions=True)
    assert [type(edit) for edit in again] == [type(edit) for edit in edits]
    assert torch.equal(logits(again), logits(edits))
    for number, edit in enumerate(edits):
        assert torch.equal(logits([again[number]]), logits([edit])), edit
        assert not torch.equal(logits([edit]), logits([])), edit
    assert again[0] == edits[0] and again[4].reference == FACTS
    twice = gf.load_edits(gf.save_edits(tmp_path / "again.json", again), functions=True)
    assert torch.equal(logits(twice), logits(edits))
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "edits.safetensors").read_bytes()


def test_numbers_are_written_only_where_there_are_some(tmp_path: Path) -> None:
    gf.save_edits(tmp_path / "cut", [gf.knockout("self_attention[0]", dst="end", src="0")])
    assert [file.name for file in tmp_path.iterdir()] == ["cut.json"]


def test_dots_belong_to_names(tmp_path: Path) -> None:
    cuts = [gf.knockout("self_attention[0]", dst="end", src=f"{place}") for place in range(2)]
    for place in range(2):
        gf.save_edits(tmp_path / f"edits.{place}", [cuts[place]])
    assert [gf.load_edits(tmp_path / f"edits.{place}") for place in range(2)] == [[cuts[0]], [cuts[1]]]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["edits.0.json", "edits.1.json"]


def test_parts_of_a_tensor_are_kept_alone(tmp_path: Path) -> None:
    """A slice of a large tensor, transposed or on its way to a gradient, is written as the numbers that it has."""
    large = torch.randn(16, 4000, requires_grad=True)
    gf.save_edits(tmp_path / "steer", [gf.steer("residual_post[0]", large[:, 7])])
    assert (tmp_path / "steer.safetensors").stat().st_size < 1000
    assert torch.equal(gf.load_edits(tmp_path / "steer")[0].vector, large[:, 7])


def test_references_of_two_texts_and_of_ids(tmp_path: Path) -> None:
    model = model_of(Tokenizer.train([TEXT], "word", min_frequency=1), TextPipeline())
    site = "decoder.residual_post[0] @ end"
    reference = (["a man", "two women eat"], ["dog", "a bike on"])
    edit = gf.ablate(site, to="mean", reference=reference)
    again = gf.load_edits(gf.save_edits(tmp_path / "two", [edit]))
    found = [gf.trace(model, "a dog", site, target="the road", edits=edits)[site] for edits in ([edit], again)]
    assert torch.equal(*found)
    this, site = case("learned positions"), "residual_post[0] @ end"
    for number, ids in enumerate(([[5, 6, 7], [8, 9]], torch.tensor([[5, 6, 7], [8, 9, 10]]))):
        edit = gf.ablate(site, to="mean", reference=ids)
        again = gf.load_edits(gf.save_edits(tmp_path / f"ids{number}", [edit]))
        assert torch.equal(*(gf.trace(this.network, this.rows, site, edits=edits)[site] for edits in ([edit], again)))
    with pytest.raises(InputError, match="a reference is kept as texts, ids or facts; got float"):
        gf.save_edits(tmp_path / "bad", [gf.ablate(site, to="mean", reference=[[0.5]])])


# --- Refused ----------------------------------------------------------------------------------------------------------


def test_functions_are_kept_by_a_name_that_can_be_imported(tmp_path: Path) -> None:
    site = "residual_post[0]"
    for function in (lambda value: value, Holder().kept, partial(torch.mul, 2)):
        with pytest.raises(InputError, match="put the function into a module, at its top"):
            gf.save_edits(tmp_path / "edits", [gf.apply(site, function)])
    assert not list(tmp_path.iterdir())
    for function in (halved, torch.relu, Holder.doubled, torch.nn.functional.relu):
        path = gf.save_edits(tmp_path / "edits", [gf.apply(site, function)])
        assert gf.load_edits(path, functions=True)[0].function is function
    with pytest.raises(InputError, match="names functions to run: if you trust it, say functions=True"):
        gf.load_edits(path)
    content = json.loads(path.read_text())
    for name in ("no_such_module:f", "torch:no_such_function", "torch", "torch.nn:functional"):
        content["edits"][0]["function"] = name
        path.write_text(json.dumps(content))
        with pytest.raises(InputError, match="cannot be imported here|must be a function"):
            gf.load_edits(path, functions=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(format=2), "has the format 2, this reads 1"),
        (lambda c: c.pop("format"), "has the format None"),
        (lambda c: c.update(edits={}), "holds no edits"),
        (lambda c: c["edits"][0].pop("dst"), "is damaged, or .*'dst'"),
        (lambda c: c["edits"].append(7), "is damaged"),
        (lambda c: c["edits"].append({"edit": "erase"}), "there is no edit 'erase': the file is damaged or newer"),
        (lambda c: c["edits"][7].update(to="nothing"), "'to' must be zero, mean or resample, got 'nothing'"),
        (lambda c: c["edits"][1].update(scale="much"), "is damaged"),
        (lambda c: c["edits"][4].update(reference=[{"subject": "x"}]), "is damaged"),
        (lambda c: c["edits"][2].update(sites=["residual_mid[7]"]), "is damaged, or edits.safetensors is not of it"),
    ],
)
def test_damaged_files(change: Any, message: str, tmp_path: Path) -> None:
    path = gf.save_edits(tmp_path / "edits", edits_of_every_kind()[:8])
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=message):
        gf.load_edits(path)


def test_missing_and_broken_files(tmp_path: Path) -> None:
    path = gf.save_edits(tmp_path / "edits", edits_of_every_kind()[:4])
    numbers = tmp_path / "edits.safetensors"
    whole = numbers.read_bytes()
    numbers.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="edits.safetensors cannot be read"):
        gf.load_edits(path)
    numbers.unlink()
    with pytest.raises(InputError, match="edits.safetensors is not of it"):
        gf.load_edits(path)
    path.write_text(path.read_text()[:40])
    with pytest.raises(InputError, match="is not valid JSON"):
        gf.load_edits(path)
    with pytest.raises(InputError, match="the file is missing"):
        gf.load_edits(tmp_path / "none")


def test_saved_values_fit_the_texts_they_were_of(tmp_path: Path) -> None:
    """A patch from a file has no texts any more, but its numbers must still be for as many."""
    model = writer()
    edit = gf.patch("residual_post[0] @ subject", gf.trace(model, FACTS, "residual_post[0] @ subject"))
    again = gf.load_edits(gf.save_edits(tmp_path / "edits", [edit]))
    assert torch.equal(logits(again), logits([edit]))
    with pytest.raises(InputError, match="there are 3 texts and values for 2"):
        logits(again, FACTS.take([0, 1, 0]))
    with pytest.raises(InputError, match="there are 1 positions and values for"):
        logits(again, FACTS.take([1, 1]))
