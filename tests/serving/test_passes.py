"""One forward pass serves several views of a text; the last few are kept, and threads wait for one another."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from serving.small_views import SOURCES, WRITER_TEXTS, predecessor, reader, translator, writer

from glassformer.errors import InputError
from glassformer.models.config import MaskedLM, RecurrentConfig
from glassformer.serving import passes as module
from glassformer.serving.passes import Passes, one_pass
from glassformer.serving.views import make_view
from glassformer.tasks.model import Model


@pytest.fixture
def readings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The texts that are read from now on."""
    texts: list[str] = []
    original = module.one_pass

    def counted(model: Model, text: str, target: str | None = None) -> Any:
        texts.append(text)
        return original(model, text, target)

    monkeypatch.setattr(module, "one_pass", counted)
    return texts


def test_what_passes_is_what_the_network_computes() -> None:
    model = writer()
    found = one_pass(model, WRITER_TEXTS[0])
    ids = torch.tensor([found.reading.ids])
    with torch.no_grad():
        expected = model.network.eval()(ids).logits[0]
    torch.testing.assert_close(found.logits, expected)
    (patterns,) = found.patterns.values()
    torch.testing.assert_close(patterns.sum(-1), torch.ones(patterns.shape[:-1]))
    assert patterns.shape[-2:] == (ids.shape[1], ids.shape[1])


def test_a_target_and_what_has_no_attention() -> None:
    found = one_pass(translator(), SOURCES[0])
    assert len(found.patterns) == 3 and found.logits is not None
    assert len(found.logits) == len(found.reading.written)
    assert one_pass(reader(MaskedLM()), "the dog").logits is None
    assert (
        one_pass(predecessor(RecurrentConfig(60, d_model=16, max_length=24, attention="none")), SOURCES[0]).patterns
        == {}
    )


def test_views_of_a_text_share_a_pass_and_are_the_same(readings: list[str]) -> None:
    model = writer()
    passes = Passes(model)
    shared = [make_view(model, view, WRITER_TEXTS[0], passes=passes) for view in ("tokens", "attention")]
    assert readings == [WRITER_TEXTS[0]]
    assert shared == [make_view(model, view, WRITER_TEXTS[0]) for view in ("tokens", "attention")]


def test_the_latest_are_kept(readings: list[str]) -> None:
    passes = Passes(writer(), most=2)
    for text in ("a dog", "a fog", "a dog", "blue", "a dog", "a fog"):
        passes.of(text)
    assert readings == ["a dog", "a fog", "blue", "a fog"]


def test_of_threads_that_ask_at_once_one_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go_on, made = threading.Event(), threading.Event(), []

    def slow(*_: Any) -> Any:
        made.append(object())
        begun.set()
        assert go_on.wait(30)
        return made[-1]

    monkeypatch.setattr(module, "one_pass", slow)
    passes = Passes(writer())
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(passes.of, "a dog")
        assert begun.wait(30)
        second = pool.submit(passes.of, "a dog")
        assert not first.done() and not second.done()
        go_on.set()
        assert first.result(30) is second.result(30) is made[0] and len(made) == 1


def test_an_error_is_told_each_time_and_not_kept(readings: list[str]) -> None:
    passes = Passes(writer())
    for _ in range(2):
        with pytest.raises(InputError, match="no tokens"):
            passes.of("")
    assert readings == ["", ""]
