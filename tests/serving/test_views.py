"""Views by name: the row of tokens against direct computation, packed patterns, parts of patching, progress, a stop."""

from __future__ import annotations

import base64
import math

import numpy as np
import pytest
import torch
from serving.by_hand import run
from serving.small_views import SOURCES, WRITER_TEXTS, reader, translator, writer

from glassformer.errors import InputError
from glassformer.models.config import MaskedLM, Sentence
from glassformer.models.decoder import Decoder
from glassformer.serving.progress import Progress, Stopped
from glassformer.serving.readings import Spelling, reading
from glassformer.serving.views import VIEWS, make_view, make_views
from glassformer.tasks.model import Model


@pytest.fixture(scope="module")
def decoder() -> Model:
    return writer()


def test_tokens_of_a_decoder(decoder: Model) -> None:
    document, ids = make_view(decoder, "tokens", WRITER_TEXTS[0], name="tiny"), reading(decoder, WRITER_TEXTS[0]).ids
    assert (document["model"], document["side"], "".join(document["tokens"])) == ("tiny", "text", WRITER_TEXTS[0])
    assert isinstance(decoder.network, Decoder)
    probabilities = run(decoder.network, list(ids)).logits.softmax(-1)
    assert document["probabilities"][0] is document["ranks"][0] is document["words"][0] is None
    for place in range(1, len(ids)):
        said, order = probabilities[place - 1], probabilities[place - 1].argsort(descending=True).tolist()
        assert document["probabilities"][place] == pytest.approx(float(said[ids[place]]), abs=6e-5)
        assert document["surprisals"][place] == pytest.approx(-math.log2(said[ids[place]]), abs=1e-3)
        assert document["ranks"][place] == 1 + order.index(ids[place])
        assert document["words"][place] == Spelling(decoder.tokenizer)(order[:5])
        assert document["shares"][place] == pytest.approx([float(said[i]) for i in order[:5]], abs=6e-5)


def test_tokens_of_a_target() -> None:
    model = translator()
    document, given = make_view(model, "tokens", SOURCES[0], target="a dog"), reading(model, SOURCES[0], "a dog")
    with torch.no_grad():
        output = model.network(torch.tensor([given.ids]), torch.tensor([given.read]))
    wanted = output.logits[0].softmax(-1)[torch.arange(3), list(given.written)]
    assert document["tokens"] == ["a", "dog", "</s>"] and document["source"] == [*SOURCES[0].split(), "</s>"]
    assert document["probabilities"] == pytest.approx(wanted.tolist(), abs=6e-5)


def test_tokens_of_a_masked_model_are_asked_with_a_mask() -> None:
    model = reader(MaskedLM())
    document = make_view(model, "tokens", "the dog rides")
    assert document["tokens"] == ["[CLS]", "the", "dog", "rides", "[SEP]"]
    for place, masked in enumerate(("[MASK] dog rides", "the [MASK] rides", "the dog [MASK]"), 1):
        filling = model.fill(masked)
        assert document["words"][place] == [one.token for one in filling]  # type: ignore[union-attr]
        shares = [one.probability for one in filling]  # type: ignore[union-attr]
        assert document["shares"][place] == pytest.approx(shares, abs=6e-5)
    assert document["ranks"][0] is document["ranks"][-1] is None


def test_tokens_without_numbers() -> None:
    document = make_view(reader(Sentence()), "tokens", "the dog")
    assert "no words" in document["unscored"] and document["probabilities"] == [None] * 4


def test_packed_patterns_are_the_same(decoder: Model) -> None:
    packed = make_view(decoder, "attention", WRITER_TEXTS[0], options={"packed": True})["maps"][0]["patterns"]
    numbers = np.frombuffer(base64.b64decode(packed["ten_thousandths"]), "<u2").reshape(packed["shape"]) / 10_000
    plain = make_view(decoder, "attention", WRITER_TEXTS[0])["maps"][0]["patterns"]
    for found, rows in zip(
        numbers.reshape(-1, numbers.shape[-1]), (r for layer in plain for h in layer for r in h), strict=True
    ):
        assert found.tolist() == rows + [0.0] * (len(found) - len(rows))


def test_long_work_tells_how_far_it_is_and_can_be_stopped(decoder: Model) -> None:
    told: list[float] = []
    make_view(decoder, "patching", WRITER_TEXTS[0], patch_from=WRITER_TEXTS[1], on_progress=told.append)
    assert told == sorted(told) and told[0] == 0 and told[-1] == 1 and len(set(told)) > 4
    seen: list[float] = []
    with pytest.raises(Stopped):
        make_view(
            decoder,
            "patching",
            WRITER_TEXTS[0],
            patch_from=WRITER_TEXTS[1],
            on_progress=seen.append,
            stopped=lambda: len(seen) > 2,
        )
    assert len(seen) == 3


def test_parts_of_work_lie_within_it() -> None:
    told: list[float] = []
    second = Progress(told.append).part(1, 4)
    second.at(0)
    second.at(1)
    assert told == [0.25, 0.5]


def test_what_is_refused(decoder: Model) -> None:
    with pytest.raises(InputError, match="Did you mean"):
        make_view(decoder, "atention", "a dog")
    with pytest.raises(InputError, match="no option 'layer'"):
        make_view(decoder, "lens", "a dog", options={"layer": 1})
    assert "second text" in make_view(decoder, "patching", "a dog")["missing"]


def test_all_views_of_a_text(decoder: Model) -> None:
    views = make_views(decoder, WRITER_TEXTS[0], patch_from=WRITER_TEXTS[1])
    assert [view["view"] for view in views] == list(VIEWS)
    assert "patching" not in [view["view"] for view in make_views(decoder, WRITER_TEXTS[0])]
