"""The verb `summarize`: by an encoder-decoder and by a decoder with a prompt; what is too long; the scores of many."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch
from tasks.small_models import TEXT, WORDS, model_of
from tasks.small_readers import reader
from tasks.small_writers import writer
from tokenizers import processors

from glassformer.errors import InputError
from glassformer.models.config import Spans
from glassformer.tasks import rouge
from glassformer.tasks.intervals import bootstrap
from glassformer.tasks.model import Generation, Model
from glassformer.tasks.summarize import PROMPT, evaluate_summaries, new_tokens, prompts
from glassformer.text.pipeline import TextPipeline
from glassformer.text.tokenizer import Tokenizer


def translator() -> Model:
    """An encoder-decoder of 24 positions."""
    tokenizer = Tokenizer.train([TEXT], kind="word", vocab_size=60, min_frequency=1)
    return model_of(tokenizer, TextPipeline(lowercase=True))


def decoder(prompt: str = "", positions: int = 48) -> Model:
    """A decoder that reads this prompt."""
    model = writer(positions=positions)
    return replace(model, pipeline=replace(model.pipeline, prompt=prompt))


MODELS = {"both": translator, "decoder": decoder}


def some_texts(count: int = 12, longest: int = 9) -> list[str]:
    draw = random.Random(0)
    return [" ".join(draw.choices(WORDS, k=draw.randint(1, longest))) for _ in range(count)]


# --- One and many -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_a_string_gives_one_and_a_list_gives_a_list(name: str) -> None:
    model = MODELS[name]()
    one = model.summarize("a man rides", max_new_tokens=5)
    assert isinstance(one, Generation) and len(one.ids) <= 5
    assert model.summarize(["a man rides"], max_new_tokens=5) == [one]
    assert model.summarize([]) == []


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("beam", [1, 3])
def test_texts_come_back_in_order_whatever_the_others(name: str, beam: int) -> None:
    model, texts = MODELS[name](), some_texts()
    together = model.summarize(texts, beam=beam, max_new_tokens=8)
    alone = [model.summarize(text, beam=beam, max_new_tokens=8) for text in texts]
    assert [one.ids for one in together] == [one.ids for one in alone]
    assert [one.text for one in together] == [one.text for one in alone]
    assert len({one.ids for one in alone}) > 3


def test_an_encoder_decoder_reads_the_text_itself() -> None:
    model, text = translator(), "A man  rides the BIKE"
    one = model.summarize(text, max_new_tokens=9)
    assert one.ids == model.translate("a man rides the bike", beam=1, max_length=9).ids
    assert one.text == model.pipeline.finish_target(model.tokenizer.decode(one.ids))


def test_a_decoder_reads_its_prompt_with_the_text_in_it() -> None:
    for prompt in ("", "on road: {text}\nso", "{text}"):
        model = decoder(prompt)
        before, _, after = (prompt or PROMPT).partition("{text}")
        ids = [i for part in (before, "a man rides", after) for i in model.tokenizer.encode(part)]
        one = model.summarize("a man rides", max_new_tokens=8)
        assert one.ids == model.generate(ids, max_new_tokens=8).ids
        assert one.text == " ".join(model.tokenizer.decode(one.ids).split())
    assert len({decoder(prompt).summarize("a man").ids for prompt in ("", "on road: {text}\nso", "{text}")}) == 3


def test_prompts_begin_as_texts_do_and_do_not_end() -> None:
    tokenizer = decoder().tokenizer
    backend = type(tokenizer._backend).from_str(tokenizer._backend.to_str())
    end = tokenizer.id_of("<|endoftext|>")
    backend.post_processor = processors.TemplateProcessing(
        single="<|endoftext|> $A <|endoftext|>", special_tokens=[("<|endoftext|>", end)]
    )
    framed = Tokenizer(backend, specials={"eos": "<|endoftext|>"})
    for prompt in ("{text} so", "on road: {text} so"):
        plain = prompts(tokenizer, prompt, ["a man", "dog"], 40)
        assert prompts(framed, prompt, ["a man", "dog"], 40) == [[end, *ids] for ids in plain]


# --- Lengths ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("positions", "most"), [(1, 1), (24, 12), (128, 64), (8192, 64)])
def test_a_summary_has_at_most_half_of_the_positions(positions: int, most: int) -> None:
    assert new_tokens(positions) == most


@pytest.mark.parametrize("name", MODELS)
def test_small_models_summarize_without_being_told_a_length(name: str) -> None:
    model = MODELS[name]()
    found = model.summarize(some_texts(), truncate=True)
    assert max(len(one.ids) for one in found) <= new_tokens(model.config.max_length)
    assert all((one.finish_reason == "length") == (one.ids[-1] not in model.ends) for one in found)


def text_of(name: str, count: int) -> str:
    """A text of so many tokens."""
    return " ".join(["a"] * count) if name == "both" else "Z" * count


@pytest.mark.parametrize(
    ("name", "settings", "count", "room"),
    [
        ("both", {}, 30, 23),
        ("both", {"max_tokens": 9}, 9, 8),
        ("decoder", {}, 30, None),
        ("decoder", {"max_tokens": 20, "max_new_tokens": 3}, 25, None),
        ("decoder", {"max_new_tokens": 40}, 9, None),
    ],
)
def test_a_text_too_long_is_refused_by_its_number_or_cut_off(
    name: str, settings: dict[str, int], count: int, room: int | None
) -> None:
    model = MODELS[name]()
    if room is None:
        most = settings.get("max_new_tokens", 24)
        around = len(model.tokenizer.encode(PROMPT.removeprefix("{text}")))
        room = min(settings.get("max_tokens", 48), 48 - most) - around
    if room < 1:
        with pytest.raises(InputError, match="the prompt alone has .* leaves no room for a text"):
            model.summarize("a", **settings)
        return
    texts = ["a", text_of(name, count)]
    with pytest.raises(InputError, match=rf"text 2 has {count} tokens, and there is room for {room}: .*truncate"):
        model.summarize(texts, **settings)
    with pytest.raises(InputError, match="text 12 has"):
        model.summarize(texts, first_line=11, **settings)
    cut = model.summarize(texts, truncate=True, **settings)
    assert cut[1].ids == model.summarize(text_of(name, room), **settings).ids
    assert cut[0].ids == model.summarize("a", **settings).ids


@pytest.mark.parametrize("name", MODELS)
def test_what_cannot_be_summarized(name: str) -> None:
    model = MODELS[name]()
    with pytest.raises(InputError, match="text 2 is empty"):
        model.summarize(["a", " \n"])
    with pytest.raises(InputError, match="text 12 is empty"):
        model.summarize(["a", ""], first_line=11)
    with pytest.raises(InputError, match="item 2 is None"):
        model.summarize(["a", None])  # type: ignore[list-item]
    with pytest.raises(InputError, match="'max_(length|new_tokens)'"):
        model.summarize("a", max_new_tokens=-1)
    with pytest.raises(InputError, match="'summarize' wants an encoder-decoder or a decoder; .*finds answers"):
        reader(Spans()).summarize("bab")


# --- Scores -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_scores_are_those_of_rouge(name: str) -> None:
    model, texts = MODELS[name](), some_texts(8)
    settings = {"beam": 2, "max_new_tokens": 9}
    found = model.summarize(texts, **settings)
    references = [f"the {one.text[: 2 + 3 * number]} dogs" for number, one in enumerate(found)]
    scores = evaluate_summaries(model, texts, references, **settings)
    wanted = rouge.rouge([one.text for one in found], references)
    assert {key: scores[key] for key in wanted} == pytest.approx(wanted)
    each = [
        100 * rouge.rouge_scores(one.text, right)["rougeL"].f1 for one, right in zip(found, references, strict=True)
    ]
    interval = bootstrap(each)
    assert scores["rougeL_interval"] == [interval.low, interval.high]
    assert scores["n"] == 8 and 0 < scores["rouge1"] < 100
    assert scores["cut_off"] == sum(one.finish_reason == "length" for one in found)


def test_gradients_are_left_alone() -> None:
    model = translator()
    model.network.train()
    model.summarize("a man", max_new_tokens=3)
    assert model.network.training and all(parameter.requires_grad for parameter in model.network.parameters())
    assert torch.is_grad_enabled()
