"""Encoders: vectors in order whatever the batches, and words for masks."""

from typing import Any

import pytest
import torch
from tasks.small_writers import WORDS, reader

from glassformer.errors import InputError
from glassformer.layers import kernels
from glassformer.models.config import Classification, MaskedLM, Sentence, Spans, Tagging
from glassformer.models.packing import packs_texts
from glassformer.tasks.fill import Fill

TEXTS = ["a man rides", "two women eat a bike on the road", "dog", "", "dogs run on the road two", "dog"]


@pytest.mark.parametrize("head", [Sentence(), Sentence("cls"), Sentence("mean", normalize=False)])
def test_vectors_come_in_order_whatever_the_batches(head: Sentence) -> None:
    model = reader(head)
    alone = torch.stack([model.embed(text) for text in TEXTS])
    assert alone.shape == (len(TEXTS), 16) and alone.dtype == torch.float32 and alone.device.type == "cpu"
    for batch_tokens in (1, 12, 4096):
        torch.testing.assert_close(model.embed(TEXTS, batch_tokens=batch_tokens), alone)
    ids = model.tokenizer.encode(TEXTS[1], frame=True)
    torch.testing.assert_close(alone[1], model.network(torch.tensor([ids])).logits[0].detach())
    assert model.embed([]).shape == (0, 16)
    assert model.network(torch.tensor([ids])).hidden.requires_grad  # nothing was switched off


def test_texts_are_read_without_their_padding(monkeypatch: pytest.MonkeyPatch) -> None:
    network: Any = reader(Sentence()).network
    ids, real = torch.randint(4, 9, (3, 7)), torch.arange(7) < torch.tensor([[4], [7], [1]])
    with torch.no_grad():
        wanted = network.hidden(ids, real=real)
        assert packs_texts(network) or kernels.library("batches") is None
        torch.testing.assert_close(network.states(ids, real)[real], wanted[real])
        monkeypatch.setattr("glassformer.layers.ragged.library", lambda *_: None)
        assert not packs_texts(network)
        assert torch.equal(network.states(ids, real), wanted)


def test_lengths_can_be_normalised_or_kept() -> None:
    for normalize in (True, False):
        model = reader(Sentence(normalize=normalize))
        plain = model.embed(TEXTS)
        torch.testing.assert_close(model.embed(TEXTS, normalize=normalize), plain)
        kept, unit = model.embed(TEXTS, normalize=False), model.embed(TEXTS, normalize=True)
        torch.testing.assert_close(unit.norm(dim=1), torch.ones(len(TEXTS)))
        torch.testing.assert_close(kept / kept.norm(dim=1, keepdim=True), unit)


def test_texts_too_long() -> None:
    model = reader(Sentence(max_length=6))
    with pytest.raises(InputError, match="line 12 has 9 tokens, the model reads at most 6.*truncate=True"):
        model.embed(["dog", "dog " * 7], first_line=11)
    cut = model.embed(["dog " * 7], truncate=True)
    torch.testing.assert_close(cut[0], model.embed("dog " * 4))
    with pytest.raises(InputError, match="at most 16"):
        reader(Sentence()).embed("dog " * 15)


def test_ids_are_read_as_they_are() -> None:
    model = reader(Sentence(max_length=6))
    framed = [model.tokenizer.encode(text, frame=True) for text in ("a man rides", "dog")]
    torch.testing.assert_close(model.embed(framed), model.embed(["a man rides", "dog"]))
    torch.testing.assert_close(model.embed(torch.tensor(framed[0])), model.embed("a man rides"))
    assert not torch.allclose(model.embed(framed[0][1:-1]), model.embed("a man rides"))  # no frame
    long = framed[0] * 2
    torch.testing.assert_close(model.embed(long, truncate=True), model.embed(long[:6]))
    for wrong, message in (
        ([long], "line 1 has 10 ids, the model reads at most 6"),
        ([[3], [999]], "line 2 must have at least one id, all of them in"),
        ([[3], []], "line 2 must have"),
        ([[3], "dog"], "all of them lists of ids"),
        ([[3], [1.5]], "text 2 is"),
    ):
        with pytest.raises(InputError, match=message):
            model.embed(wrong)


def test_what_cannot_be_embedded() -> None:
    with pytest.raises(InputError, match="line 2 is None"):
        reader(Sentence()).embed(["a", None])  # type: ignore[list-item]
    with pytest.raises(InputError, match="'batch_tokens'"):
        reader(Sentence()).embed(["a"], batch_tokens=0)
    for head, message in (
        (None, "fills masks"),
        (Classification(("x", "y")), r"gives a text one of its labels \(classify\)"),
        (Tagging(("x",)), "labels tokens"),
        (Spans(), r"finds answers in a text \(answer\)"),
    ):
        with pytest.raises(InputError, match=f"'embed' wants a model with a sentence head; .*{message}"):
            reader(head).embed("a")


@pytest.mark.parametrize("head", [None, MaskedLM()])
def test_words_for_a_mask(head: Any) -> None:
    model = reader(head)
    found = model.fill("A man [MASK] the bike.", top=3)
    ids = model.tokenizer.encode("A man [MASK] the bike.", frame=True, read_specials=True)
    wanted = model.network(torch.tensor([ids])).logits[0, 3].softmax(-1).topk(3)
    assert [one.token for one in found] == model.tokenizer.tokens(wanted.indices.tolist())  # type: ignore[union-attr]
    assert [one.probability for one in found] == pytest.approx(wanted.values.tolist(), abs=1e-5)  # type: ignore[union-attr]
    everything = model.fill("A man [MASK] the bike.", top=1000)
    by_token = {one.token: one.text for one in everything if isinstance(one, Fill)}
    assert len(by_token) == len(WORDS) + 5
    assert by_token["rides"] == "A man rides the bike." and by_token["##s"] == "A mans the bike."


def test_several_masks_give_a_list_each() -> None:
    first, second = reader(None).fill("a [MASK] rides a [MASK]", top=2)
    assert isinstance(first, list) and isinstance(second, list) and len(first) == len(second) == 2
    assert all(one.text.endswith("rides a [MASK]") for one in first)
    assert all(one.text.startswith("a [MASK] rides a") for one in second)


def test_what_cannot_be_filled() -> None:
    model = reader(None)
    with pytest.raises(InputError, match=r"this model writes \[MASK\]"):
        model.fill("a man rides")
    with pytest.raises(InputError, match="has 17 tokens, the model reads at most 16"):
        model.fill("[MASK] " + "a " * 14)
    with pytest.raises(InputError, match="'top'"):
        model.fill("[MASK]", top=0)
