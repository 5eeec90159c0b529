"""`generate` and `stream`: text goes on from a prompt, alike alone and in any batch, whole and piece by piece."""

import dataclasses
import typing
from pathlib import Path
from typing import Any

import pytest
import torch
from generation.small_decoders import END, byte_level, decoder
from tasks.small_models import model_of
from tasks.small_writers import reader, writer

from glassformer.errors import InputError
from glassformer.models.config import Sentence
from glassformer.tasks.generate import Generation, Options, Settings
from glassformer.tasks.model import Model, load
from glassformer.text.pipeline import TextPipeline
from glassformer.text.tokenizer import Tokenizer

PROMPTS = ["a man", "two women eat", "the road", "", "日本"]


def test_one_gives_one_and_a_list_gives_a_list() -> None:
    model = writer()
    one = model.generate("a man", max_new_tokens=6)
    assert isinstance(one, Generation) and len(one.ids) == 6 == len(one.logprobs)
    assert model.generate(["a man"], max_new_tokens=6) == [one]
    ids = model.tokenizer.encode("a man")
    assert model.generate(ids, max_new_tokens=6) == one
    assert model.generate(torch.tensor(ids), max_new_tokens=6) == one
    assert [other.ids for other in model.generate([ids, ids], max_new_tokens=6)] == [one.ids] * 2
    assert model.generate([]) == []
    assert one.prompt_ids == tuple(ids) and one.score == pytest.approx(sum(one.logprobs))
    assert one.text == model.tokenizer.decode(one.ids) and one.top_logprobs is None


@pytest.mark.parametrize("settings", [{}, {"temperature": 1.0, "seed": 5}, {"temperature": 1.5, "seed": 0, "top_k": 9}])
@pytest.mark.parametrize("batch_size", [1, 2, None])
def test_batches_change_nothing(settings: dict[str, Any], batch_size: int | None) -> None:
    model = writer()
    together = model.generate(PROMPTS, max_new_tokens=9, **settings)
    assert [one.ids for one in model.generate(PROMPTS, max_new_tokens=9, batch_size=batch_size, **settings)] == [
        one.ids for one in together
    ]
    assert model.generate(PROMPTS[0], max_new_tokens=9, **settings).ids == together[0].ids
    assert len({one.ids for one in together}) == len(PROMPTS)


def test_seeds() -> None:
    model = writer()

    def texts(seed: int | None) -> list[tuple[int, ...]]:
        return [one.ids for one in model.generate(["a man"] * 3, temperature=1.0, max_new_tokens=8, seed=seed)]

    assert len(set(texts(1))) == 3 and texts(1) == texts(1) != texts(2)
    torch.manual_seed(0)
    drawn = texts(None)
    assert texts(None) != drawn
    torch.manual_seed(0)
    assert texts(None) == drawn


@pytest.mark.parametrize("settings", [{}, {"temperature": 1.2, "seed": 3, "stop": ["e", "日x"]}, {"logprobs": 2}])
def test_a_stream_gives_what_generate_gives(settings: dict[str, Any]) -> None:
    model = writer()
    for prompt in PROMPTS:
        whole = model.generate(prompt, max_new_tokens=20, **settings)
        pieces = list(model.stream(prompt, max_new_tokens=20, **settings))
        assert "".join(piece.text for piece in pieces) == whole.text
        assert tuple(i for piece in pieces for i in piece.ids) == whole.ids
        assert tuple(p for piece in pieces for p in piece.logprobs) == whole.logprobs
        assert [piece.finish_reason for piece in pieces] == [None] * (len(pieces) - 1) + [whole.finish_reason]


def test_a_stream_may_be_left_and_says_at_once_what_is_wrong() -> None:
    model = writer()
    stream = model.stream("a man")
    assert next(stream).ids
    stream.close()  # type: ignore[attr-defined]
    with pytest.raises(InputError, match="'top_p'"):
        model.stream("a man", top_p=2)
    with pytest.raises(InputError, match="one prompt"):
        model.stream(["a man"])  # type: ignore[arg-type]
    with pytest.raises(InputError, match="beam=1"):
        model.stream("a man", beam=2)


def test_the_text_goes_on_from_the_prompt() -> None:
    """A tokenizer that writes the space before a word into its token keeps that space."""
    tokenizer = Tokenizer.train(["a man rides the bike on road"] * 3, vocab_size=60, min_frequency=1)
    model = Model(decoder(vocab_size=tokenizer.vocab_size), tokenizer, TextPipeline(), eos_ids=(2,))
    found = model.generate("a man", max_new_tokens=12, logit_bias={1: -100, 0: -100, 3: -100})
    whole = tokenizer.decode([*tokenizer.encode("a man"), *found.ids])
    assert whole == "a man" + found.text
    beam = model.generate("a man", max_new_tokens=12, beam=2)
    assert tokenizer.decode([*tokenizer.encode("a man"), *beam.ids]) == "a man" + beam.text


def test_beam_and_n_best() -> None:
    model = writer()
    found = model.generate(["a man", "日本"], beam=4, n_best=3, max_new_tokens=6, batch_size=1)
    assert [model.generate(prompt, beam=4, n_best=3, max_new_tokens=6) for prompt in ("a man", "日本")] == found
    for one in found:
        scores = [one.score, *(other.score for other in one.alternatives)]
        assert len(scores) == 3 and scores == sorted(scores, reverse=True)
    greedy = model.generate("a man", max_new_tokens=6)
    assert sum(found[0].logprobs) >= greedy.score - 1e-4
    for wrong in ({"n_best": 2}, {"beam": 2, "temperature": 1}, {"beam": 2, "stop": "x"}, {"beam": 2, "logprobs": 1}):
        with pytest.raises(InputError, match="beam"):
            model.generate("a man", **wrong)


def test_log_probabilities() -> None:
    model = writer()
    found = model.generate("a man", max_new_tokens=3, logprobs=4, prompt_logprobs=True, temperature=2.0, seed=1)
    score = model.score([*found.prompt_ids, *found.ids])  # type: ignore[misc]
    assert found.prompt_logprobs is not None and found.top_logprobs is not None
    assert found.prompt_logprobs[0] is None
    told = [*found.prompt_logprobs[1:], *found.logprobs]
    assert told == pytest.approx(score.logprobs[1:], abs=1e-4)  # the model's own, whatever the temperature
    assert [len(pairs) for pairs in found.top_logprobs] == [4] * 3
    only = model.generate("a man", max_new_tokens=0, prompt_logprobs=True)
    assert only.text == "" and only.prompt_logprobs == pytest.approx(found.prompt_logprobs)
    assert model.generate("a man", max_new_tokens=0) == Generation(
        "", (), (), "length", 0.0, prompt_ids=found.prompt_ids
    )


def test_prompts_too_long() -> None:
    model = writer()
    ids = list(range(1, 61))
    with pytest.raises(InputError, match="prompt 2 has 60 tokens, the model reads at most 48: shorten it, or"):
        model.generate([[5], ids])
    with pytest.warns(UserWarning, match="prompt 1 has 60 tokens, .* only the last 38 are read"):
        cut = model.generate(ids, truncate=True, max_new_tokens=10)
    assert cut.prompt_ids == tuple(ids[-38:]) and cut.ids == model.generate(ids[-38:], max_new_tokens=10).ids
    with pytest.warns(UserWarning, match="only the last 24 are read"):
        assert len(model.generate(ids, truncate=True, max_new_tokens=500).ids) == 24
    assert len(model.generate(ids[:40], max_new_tokens=50).ids) == 8
    assert model.generate(ids[:48]).finish_reason == "length"


def test_an_empty_prompt_begins_with_the_first_token() -> None:
    assert writer().generate("", max_new_tokens=4) == writer().generate([END], max_new_tokens=4)
    assert writer().generate([[]], max_new_tokens=4)[0].prompt_ids == (END,)
    tokenizer = Tokenizer(byte_level()._backend.from_str(byte_level()._backend.to_str().replace("<|endoftext|>", "#")))
    with pytest.raises(InputError, match="the prompt is empty"):
        Model(decoder(), tokenizer, TextPipeline()).generate("")


def test_ends_of_text() -> None:
    model = writer()
    plain = model.generate("a man", max_new_tokens=8)
    ends = dataclasses.replace(model, eos_ids=(299, plain.ids[3]))
    assert ends.generate("a man", max_new_tokens=8).ids == plain.ids[: plain.ids.index(plain.ids[3]) + 1]
    assert ends.generate("a man", max_new_tokens=8, ignore_eos=True) == plain


def test_eos_ids_are_saved(tmp_path: Path) -> None:
    model = dataclasses.replace(writer(), eos_ids=(0, 7))
    model.save(tmp_path / "saved", extra={"note": "x"})
    again = load(tmp_path / "saved")
    assert again.eos_ids == (0, 7) and again.task == "generation"
    assert again.generate("a man", max_new_tokens=5) == model.generate("a man", max_new_tokens=5)


def test_as_a_folder_of_hugging_face(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM  # type: ignore[import-untyped]

    torch.manual_seed(0)
    model = writer()
    changed = dataclasses.replace(
        model.config, norm="rms", gated=True, activation="silu", bias=False, scale_embedding=False
    )
    from glassformer.models.config import Rotary
    from glassformer.models.decoder import Decoder

    network = Decoder(dataclasses.replace(changed, positions=Rotary())).eval()
    ours = Model(network, model.tokenizer, model.pipeline, "generation", (0, 7))
    ours.save_pretrained(tmp_path / "theirs")
    again = load(tmp_path / "theirs")
    assert again.eos_ids == (0, 7)
    assert again.generate("a man", max_new_tokens=5).ids == ours.generate("a man", max_new_tokens=5).ids
    ids = torch.tensor([ours.tokenizer.encode("a man")])
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "theirs").generate(ids, max_new_tokens=5, do_sample=False)
    assert tuple(theirs[0, ids.shape[1] :].tolist()) == ours.generate("a man", max_new_tokens=5).ids


def test_by_a_json_schema() -> None:
    pytest.importorskip("llguidance")
    import json

    model = writer(positions=200)
    schema = {"type": "object", "properties": {"a": {"enum": [1, 2]}}, "required": ["a"], "additionalProperties": False}
    for one in model.generate(["a", "b c"], json_schema=schema, temperature=1.0, seed=1, max_new_tokens=190):
        assert one.finish_reason == "stop" and json.loads(one.text)["a"] in (1, 2)


def test_settings_and_options_are_the_same() -> None:
    fields = {field.name: field for field in dataclasses.fields(Options) if field.init}
    assert set(typing.get_type_hints(Settings)) == set(fields)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"max_new_tokens": -1}, "'max_new_tokens' must be a whole number from 0"),
        ({"beam": 0}, "'beam' must be a whole number from 1"),
        ({"batch_size": 0}, "'batch_size' must be"),
        ({"seed": -1}, "'seed' must be"),
        ({"stop": ""}, "'stop' must be strings"),
        ({"temperature": -1}, "'temperature'"),
        ({"logprobs": -1}, "'logprobs'"),
        ({"logit_bias": {300: 1}}, "'logit_bias' names the id 300"),
    ],
)
def test_settings_that_cannot_be(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        writer().generate("a man", **wrong)


@pytest.mark.parametrize("wrong", [5, None, [None], [["a"]], {"a": 1}, [[True]]])
def test_what_is_no_prompt(wrong: Any) -> None:
    with pytest.raises(InputError, match="must be a string or a list of ids"):
        writer().generate(wrong)


def test_what_a_family_cannot_do() -> None:
    translator = model_of(
        Tokenizer.train(["a man"], kind="word", vocab_size=9, min_frequency=1), TextPipeline(lowercase=True)
    )
    sentences, decoder_model = reader(Sentence()), writer()
    for model, verb, message in (
        (translator, "generate", "only a decoder .* is an encoder-decoder: .*translate"),
        (translator, "embed", "sentence head.*encoder-decoder"),
        (translator, "score", "only a decoder"),
        (sentences, "generate", "only a decoder .* turns text into vectors"),
        (sentences, "stream", "only a decoder"),
        (sentences, "perplexity", "only a decoder"),
        (sentences, "translate", "'translate' wants an encoder-decoder"),
        (sentences, "fill", "'fill' wants a model that fills masks"),
        (decoder_model, "translate", "goes on from a prompt"),
        (decoder_model, "embed", "sentence head.* decoder"),
        (decoder_model, "fill", "decoder"),
    ):
        with pytest.raises(InputError, match=message):
            getattr(model, verb)("a man")


def test_calling_a_model_gives_the_networks_output() -> None:
    model = writer()
    several = model(["a man", "two women eat"])
    assert several.logits.requires_grad
    one = model("a man")
    length = one.logits.shape[1]
    torch.testing.assert_close(several.logits[:1, :length], one.logits)
    torch.testing.assert_close(model(model.tokenizer.encode("a man")).logits, one.logits)
    translator = model_of(
        Tokenizer.train(["a man"], kind="word", vocab_size=9, min_frequency=1), TextPipeline(lowercase=True)
    )
    ids = translator.tokenizer.encode("a man")
    wanted = translator.network(torch.tensor([[*ids, 2]]), torch.tensor([[1, *ids]]))
    torch.testing.assert_close(translator("A man", "a man").logits, wanted.logits)
    assert reader(Sentence())("a man").logits.shape == (1, 16)
    for wrong in (lambda: translator("a"), lambda: model("a", "b"), lambda: model([])):
        with pytest.raises(InputError):
            wrong()
