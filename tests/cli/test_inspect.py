"""`glassformer inspect`."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from processes import Glassformer, run_inside
from serving.small_views import predecessor, reader, translator, writer

import glassformer as gf
from glassformer.models.config import MaskedLM
from glassformer.models.convolutional import ConvolutionalConfig
from glassformer.models.recurrent import RecurrentConfig
from glassformer.serving.views import VIEWS, make_views
from glassformer.tasks.model import Model


def kept(path: Path) -> list[dict[str, object]]:
    """The documents in a page."""
    found = re.findall(r'class="document">(.*?)</script>', path.read_text(encoding="utf-8"), re.DOTALL)
    return [json.loads(text) for text in found]


@pytest.mark.slow
def test_a_page_of_one_text(glassformer: Glassformer, tiny_decoder: Path, tmp_path: Path) -> None:
    done = glassformer("inspect", "--model", tiny_decoder, "a dog", "--patch-from", "a man", cwd=tmp_path)
    assert (done.code, done.out, done.err) == (0, "inspect.html\n", "")
    assert [path.name for path in tmp_path.iterdir()] == ["inspect.html"]
    wanted = make_views(gf.load(tiny_decoder), "a dog", patch_from="a man", name=str(tiny_decoder))
    assert [document["view"] for document in wanted] == list(VIEWS)
    assert kept(tmp_path / "inspect.html") == wanted


def test_json_is_a_document_a_line(tiny_decoder: Path, tmp_path: Path) -> None:
    out = tmp_path / "pages" / "page.html"
    done = run_inside("inspect", "--model", tiny_decoder, "--json", "--out", out, "-", stdin="ein Hünd\n".encode())
    assert (done.code, done.err) == (0, "")
    lines = [json.loads(line) for line in done.out.splitlines()]
    assert [(line["view"], line["version"]) for line in lines] == [(v, 1) for v in VIEWS if v != "patching"]
    assert lines[0]["text"] == "ein Hünd" and kept(out) == lines


def test_json_alone_writes_no_page(tiny_embed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = run_inside("inspect", "--model", tiny_embed, "--json", "a dog")
    assert done.code == 0 and not list(tmp_path.iterdir())
    assert [line.split(":")[0] for line in done.err.splitlines()] == ["no lens", "no truth"]


def test_two_models_side_by_side(tiny_decoder: Path, tiny_embed: Path, tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    done = run_inside("inspect", "--model", tiny_decoder, "--compare", tiny_embed, "a dog", "--out", out)
    assert (done.code, done.out) == (0, f"{out}\n")
    one, two = (make_views(gf.load(path), "a dog", name=str(path)) for path in (tiny_decoder, tiny_embed))
    assert kept(out) == [*one, *two]


KINDS: dict[str, Callable[[], Model]] = {
    "gpt": writer,
    "bert": lambda: reader(MaskedLM()),
    "translator": translator,
    "lstm": lambda: predecessor(RecurrentConfig(60, d_model=16, max_length=24, tie_head=False)),
    "convs2s": lambda: predecessor(ConvolutionalConfig(60, d_model=16, max_length=24, tie_head=False)),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A model of each kind, as two runs of it, the second with half the weights."""
    root, found = tmp_path_factory.mktemp("models"), {}
    for kind, make in KINDS.items():
        for run, factor in (("one", 1.0), ("two", 0.5)):
            model, found[f"{kind} {run}"] = make(), root / f"{kind}-{run}"
            with torch.no_grad():
                for weights in model.network.parameters():
                    weights.mul_(factor)
            model.save(found[f"{kind} {run}"])
    return found


MIXED = [("gpt one", "translator one"), ("translator one", "lstm one"), ("lstm one", "bert one")]


@pytest.mark.parametrize(("one", "two"), [*((f"{kind} one", f"{kind} two") for kind in KINDS if kind != "gpt"), *MIXED])
def test_any_two_kinds_are_compared(folders: dict[str, Path], one: str, two: str, tmp_path: Path) -> None:
    text, out = "a man runs", tmp_path / "page.html"
    done = run_inside("inspect", "--model", folders[one], "--compare", folders[two], text, "--out", out)
    assert (done.code, done.out) == (0, f"{out}\n"), done.err
    documents = kept(out)
    assert [document["view"] for document in documents] == [view for view in VIEWS if view != "patching"] * 2
    half = len(documents) // 2
    for path, found in ((folders[one], documents[:half]), (folders[two], documents[half:])):
        assert found == make_views(gf.load(path), text, name=str(path))


@pytest.mark.parametrize(
    ("one", "two", "arguments", "refused", "why"),
    [
        ("translator one", "gpt one", ["--target", "the dog"], "gpt one", "--target"),
        ("gpt one", "bert one", ["--patch-from", "a dog runs"], "bert one", "[MASK]"),
        ("lstm one", "bert one", ["--target", "the dog"], "bert one", "encoder-decoder"),
    ],
)
def test_what_one_of_two_models_cannot_take(
    folders: dict[str, Path], one: str, two: str, arguments: list[str], refused: str, why: str, tmp_path: Path
) -> None:
    out = tmp_path / "page.html"
    models = "--model", folders[one], "--compare", folders[two]
    done = run_inside("inspect", *models, "a fog runs", *arguments, "--out", out)
    assert (done.code, done.out) == (2, "") and done.err.count("\n") == 1 and not out.exists()
    assert str(folders[refused]) in done.err and why in done.err and "can be compared" in done.err


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["a dog", "--patch-from", "a very long text"], "equal length"),
        (["a dog", "--target", "ein Hund"], "encoder-decoder"),
        (["a dog " * 100], "128"),
        (["a dog", "--out", "/"], "/"),
    ],
)
def test_a_mistake_is_one_line(tiny_decoder: Path, arguments: list[str], hint: str) -> None:
    done = run_inside("inspect", "--model", tiny_decoder, *arguments)
    assert (done.code, done.out) == (2, "") and done.err.count("\n") == 1
    assert hint in done.err


def test_bytes_that_are_no_text(tiny_decoder: Path) -> None:
    done = run_inside("inspect", "--model", tiny_decoder, "-", stdin=b"a \xff")
    assert done.code == 2 and "0xff" in done.err
