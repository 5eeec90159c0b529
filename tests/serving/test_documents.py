"""Documents of a page: their numbers against direct computation, and what a model's family leaves out."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from serving.by_hand import ByHand, run
from serving.small_views import SOURCES, WRITER_TEXTS, predecessor, reader, translator, writer
from tasks.small_models import TEXT
from torch import Tensor, nn

from glassformer.errors import InputError
from glassformer.interpret.inputs import prepare
from glassformer.layers.sites import planned, record, share
from glassformer.models.config import Classification, ConvolutionalConfig, MaskedLM, RecurrentConfig, Sentence
from glassformer.models.decoder import Decoder
from glassformer.serving.documents import attention_document, documents, lens_document, patching_document
from glassformer.serving.patches import patch_everywhere
from glassformer.serving.readings import MOST_TOKENS, Spelling, reading
from glassformer.serving.tags import head_tags
from glassformer.tasks.alignment import align
from glassformer.tasks.model import Model
from glassformer.text.tokenizer import Tokenizer

CLOSE = 6e-5  # half a unit of the fourth digit, and the arithmetic's own noise


def filled(rows: list[Any], width: int) -> Tensor:
    """Nested rows of which some end early, as a tensor with zeros there."""
    if rows and isinstance(rows[0], list) and (not rows[0] or isinstance(rows[0][0], list)):
        return torch.stack([filled(row, width) for row in rows])
    if rows and isinstance(rows[0], list):
        return torch.stack([torch.tensor(row + [0.0] * (width - len(row))) for row in rows])
    return torch.tensor(rows + [0.0] * (width - len(rows)))


def close(left: Any, right: Tensor) -> None:
    torch.testing.assert_close(torch.as_tensor(left), right, atol=CLOSE, rtol=0)


@pytest.fixture(scope="module")
def decoder() -> Model:
    return writer()


def computed(model: Model, text: str, **settings: Any) -> ByHand:
    assert isinstance(model.network, Decoder)
    return run(model.network, list(reading(model, text).ids), **settings)


# --- Attention --------------------------------------------------------------------------------------------------------


def test_patterns_of_a_decoder(decoder: Model) -> None:
    document = attention_document(decoder, WRITER_TEXTS[0])
    (only,) = document["maps"]
    assert (document["view"], document["version"], document["family"]) == ("attention", 1, "decoder")
    assert only["site"] == "self_attention.pattern" and not only["cross"]
    assert "".join(only["keys"]) == WRITER_TEXTS[0] and only["queries"] == only["keys"]
    wanted = torch.stack(computed(decoder, WRITER_TEXTS[0]).patterns)
    close(filled(only["patterns"], len(only["keys"])), wanted)
    assert [len(row) for row in only["patterns"][0][0]] == list(range(1, len(only["keys"]) + 1))


def test_cross_attention_is_the_alignment() -> None:
    model = translator()
    for target in (None, "the dog runs on road"):
        document = attention_document(model, SOURCES[0], target)
        assert [one["cross"] for one in document["maps"]] == [False, False, True]
        cross, wanted = document["maps"][2], align(model, SOURCES[0], target)
        patterns = filled(cross["patterns"], len(cross["keys"]))
        close(patterns[-1].mean(0), wanted.pattern)
        assert (tuple(cross["keys"]), tuple(cross["queries"])) == (wanted.source, wanted.target)
        own = document["maps"][1]
        assert own["queries"] == ["<s>", *cross["queries"][:-1]]


@pytest.mark.parametrize("feeding", [False, True])
def test_a_recurrent_network_shows_where_each_step_looks(feeding: bool) -> None:
    model = predecessor(RecurrentConfig(60, d_model=16, max_length=24, tie_head=False, input_feeding=feeding))
    views = documents(model, SOURCES[0], target="a dog runs", source_text=SOURCES[1])
    cross = views[0]["maps"][0]
    assert cross["queries"] == ["a", "dog", "runs", "</s>"]
    patterns = filled(cross["patterns"], len(cross["keys"]))
    torch.testing.assert_close(patterns.sum(-1), torch.ones(1, 1, 4), atol=3e-4, rtol=0)
    if not feeding:
        close(patterns[0, 0], align(model, SOURCES[0], "a dog runs").pattern)
    assert all("kind" in view["missing"] and len(view) == 7 for view in views[1:])


def test_convolutions_look_in_every_layer() -> None:
    model = predecessor(ConvolutionalConfig(60, d_model=16, max_length=24, n_decoder_layers=2, tie_head=False))
    (cross,) = attention_document(model, SOURCES[0], "a dog")["maps"]
    assert len(cross["patterns"]) == 2 and cross["cross"]


def test_a_network_without_attention_says_so() -> None:
    model = predecessor(RecurrentConfig(60, d_model=16, max_length=24, attention="none"))
    assert "without attention" in attention_document(model, SOURCES[0], "a dog")["missing"]


def test_tags_say_where_a_head_looks() -> None:
    ids = [5, 6, 7, 5, 6, 7]
    previous = torch.ones(5).diag(-1)
    duplicate, induction = torch.zeros(6, 6), torch.zeros(6, 6)
    for query, key in ((3, 0), (4, 1), (5, 2)):
        duplicate[query] = torch.eye(6)[key]
        induction[query] = torch.eye(6)[key + 1]
    sink = torch.zeros(6, 6)
    sink[:, 0] = 1
    heads = torch.stack([previous, duplicate, induction, torch.full((6, 6), 1 / 6)])
    assert head_tags(heads, ids) == [["previous token"], ["duplicate"], ["induction"], []]
    assert head_tags(sink[None], [5, 6, 7, 8, 9, 10]) == [[]]


# --- Lens -------------------------------------------------------------------------------------------------------------


def test_the_lens_reads_every_state_as_the_last(decoder: Model) -> None:
    document, hand = lens_document(decoder, WRITER_TEXTS[0]), computed(decoder, WRITER_TEXTS[0])
    network, spelled = decoder.network, Spelling(decoder.tokenizer)
    assert isinstance(network, Decoder)
    assert document["sites"] == ["residual_pre[0]", "residual_post[0]", "residual_post[1]"]
    assert document["readout"] == "the final norm, then the head"
    final = hand.logits.argmax(-1)
    assert document["answers"] == spelled(final.tolist())
    for row, stream in enumerate(hand.stream):
        with torch.no_grad():
            probabilities = network.head(network.stack.final_norm(stream)).softmax(-1)
        best = probabilities.sort(-1, descending=True)
        close(document["probabilities"][row], best.values[:, :5])
        assert document["words"][row] == [spelled(ids.tolist()) for ids in best.indices[:, :5]]
        ranks = [int((best.indices[place] == final[place]).nonzero()) + 1 for place in range(len(final))]
        assert document["ranks"][row] == ranks
    assert set(document["ranks"][-1]) == {1} and max(map(max, document["ranks"])) > 1


def test_the_lens_of_a_translator_ends_with_its_words() -> None:
    model = translator()
    document = lens_document(model, SOURCES[0])
    written = model.translate(SOURCES[0], beam=1, max_length=24)
    assert document["answers"] == model.tokenizer.tokens(written.ids)
    assert document["tokens"][0] == "<s>" and "itself" in document["readout"]  # post-norm: there is no final norm


def test_the_lens_of_a_masked_model() -> None:
    model, text = reader(MaskedLM()), "the [MASK] rides the bike"
    document = lens_document(model, text)
    place = document["tokens"].index("[MASK]")
    filling = model.fill(text)
    assert document["words"][-1][place] == [one.token for one in filling]  # type: ignore[union-attr]
    close(document["probabilities"][-1][place], torch.tensor([one.probability for one in filling]))  # type: ignore


# --- Patching ---------------------------------------------------------------------------------------------------------


def test_patching_a_decoder(decoder: Model) -> None:
    document = patching_document(decoder, *WRITER_TEXTS)
    ids = [list(reading(decoder, text).ids) for text in WRITER_TEXTS]
    clean, other = (computed(decoder, text) for text in WRITER_TEXTS)
    first, second = int(clean.logits[-1].argmax()), int(other.logits[-1].argmax())
    assert first != second and document["answers"] == Spelling(decoder.tokenizer)([first, second])

    def difference(hand: ByHand) -> float:
        return float(hand.logits[-1, second] - hand.logits[-1, first])

    start, end = difference(clean), difference(other)
    close([document["start"], document["end"]], torch.tensor([start, end]))
    for row, stream in enumerate(other.stream):
        for place in range(len(ids[0])):
            patched = run(decoder.network, ids[0], {(row, place): stream[place]})  # type: ignore[arg-type]
            effect = (difference(patched) - start) / (end - start)
            assert document["effects"][row][place] == pytest.approx(effect, abs=1e-4)
    assert document["effects"][-1] == [0.0] * (len(ids[0]) - 1) + [1.0]
    assert document["tokens"] != document["other_tokens"]


def test_where_both_texts_have_one_answer_the_second_is_what_rises_most(decoder: Model) -> None:
    class Certain(nn.Module):
        def forward(self, states: Tensor) -> Tensor:
            logits = head(states)
            return torch.cat((logits[..., :3] * 0.01, logits[..., 3:4] * 0 + 50), -1)  # 3 is always the answer

    network: Any = share(decoder.network)
    head, network.head = network.head, Certain()
    inputs, others = (prepare(network, [ids]) for ids in ([20, 21], [22, 21]))
    found = patch_everywhere(network, "", inputs, others)
    assert found is not None
    with torch.no_grad():
        before, after = (network(each.text.ids).logits[0, -1].softmax(-1)[:3] for each in (inputs, others))
    assert found.answers == (3, int((after - before).argmax()))
    assert patch_everywhere(network, "", inputs, inputs) is None


def test_what_stands_before_the_first_difference_changes_nothing(decoder: Model) -> None:
    effects = torch.tensor(patching_document(decoder, *WRITER_TEXTS)["effects"])
    assert not effects[:, :2].any() and (effects[:, 2:] != 0).any(0).all()


def test_patching_the_encoder_of_a_translator() -> None:
    model = translator()
    other = next(text for text in candidates() if differs(model, text))
    document = patching_document(model, SOURCES[0], other)
    first, second = reading(model, SOURCES[0]), reading(model, other)
    place = next(i for i, (a, b) in enumerate(zip(first.written, second.written, strict=False)) if a != b)
    source, changed = (torch.tensor([each.ids]) for each in (first, second))
    target = torch.tensor([first.read[: place + 1]])
    answers = first.written[place], second.written[place]

    @torch.no_grad()
    def difference(network: Any, ids: Tensor) -> float:
        logits = network(ids, target).logits[0, -1]
        return float(logits[answers[1]] - logits[answers[0]])

    start, end = difference(model.network, source), difference(model.network, changed)
    close([document["start"], document["end"]], torch.tensor([start, end]))
    watched, states = record(model.network, document["sites"])
    difference(watched, changed)
    for row, site in enumerate(document["sites"]):
        for position in range(source.shape[1]):

            def put(value: Tensor, site: str = site, position: int = position) -> Tensor:
                value = value.clone()
                value[:, position] = states[site][:, position]
                return value

            effect = (difference(planned(model.network, {site: put}), source) - start) / (end - start)
            assert document["effects"][row][position] == pytest.approx(effect, abs=2e-4)
    assert document["sites"][0] == "encoder.residual_pre[0]"


def candidates() -> list[str]:
    return [" ".join([word, *SOURCES[0].split()[1:]]) for word in TEXT.split() if word not in ("a", ",")]


def differs(model: Model, text: str) -> bool:
    return model.translate(text, beam=1, max_length=24).ids != model.translate(SOURCES[0], beam=1, max_length=24).ids


def test_patching_a_masked_model_and_a_classifier() -> None:
    masked = patching_document(reader(MaskedLM()), "the [MASK] rides", "a [MASK] rides")
    assert "mask" in masked["metric"] and masked["effects"][0][1] == 1.0
    assert masked["effects"][-1][2] == 1.0 and masked["effects"][-1][1] == 0.0
    model = reader(Classification(("bad", "good")))
    document = patching_document(model, "the man rides", "the dog rides")
    assert set(document["answers"]) == {"bad", "good"} and document["effects"][0][2] == 1.0
    assert document["effects"][-1] == [1.0, 0.0, 0.0, 0.0, 0.0]  # the first state is what the labels are read from


def test_a_model_of_vectors_has_attention_alone() -> None:
    views = documents(reader(Sentence()), "the dog", source_text="the man", name="vectors")
    assert ["missing" in view for view in views] == [False, True, True]
    assert {view["model"] for view in views} == {"vectors"}


# --- What is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "hint"),
    [
        (("a " * 60, None), "48"),
        (("", None), "at least one word"),
        (("a dog", "two women eat naïve"), "equal length"),
        (("a dog", "a dog"), "alike"),
    ],
)
def test_a_text_that_cannot_be_shown(decoder: Model, given: tuple[str, str | None], hint: str) -> None:
    with pytest.raises(InputError, match=hint):
        documents(decoder, given[0], source_text=given[1])


def test_what_other_families_refuse(decoder: Model) -> None:
    with pytest.raises(InputError, match=f"at most {MOST_TOKENS}"):
        attention_document(writer(positions=300), "日" * 90)
    with pytest.raises(InputError, match="target is for"):
        attention_document(decoder, "a dog", "ein Hund")
    with pytest.raises(InputError, match=r"\[MASK\] once"):
        patching_document(reader(MaskedLM()), "the [MASK] rides", "[MASK] dog rides")
    with pytest.raises(InputError, match="writes the same"):
        patching_document(translator(), SOURCES[0], SOURCES[0])


def test_documents_are_json_of_rounded_numbers(decoder: Model) -> None:
    views = documents(decoder, WRITER_TEXTS[0], source_text=WRITER_TEXTS[1], name="tiny")
    assert json.loads(json.dumps(views, allow_nan=False)) == views
    assert [view["view"] for view in views] == ["attention", "lens", "patching"]
    assert all(round(number, 4) == number and str(number) != "-0.0" for number in flat(views))


def flat(value: Any) -> list[float]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return [number for each in value for number in flat(each)]
    return [value] if isinstance(value, float) else []


def test_tokens_are_spelled_for_people(decoder: Model) -> None:
    spelled = Spelling(decoder.tokenizer)
    assert "".join(spelled(decoder.tokenizer.encode("über a dog"))) == "über a dog"
    assert "\ufffd" not in "".join(spelled(decoder.tokenizer.encode("日")))  # parts of a character
    assert spelled([0, 10**6]) == ["<|endoftext|>", "<1000000>"]
    pieces = Tokenizer.train([TEXT] * 9, kind="bpe", vocab_size=60)
    assert "".join(Spelling(pieces)(pieces.encode("a man"))) == " a man"
