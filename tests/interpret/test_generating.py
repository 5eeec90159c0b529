"""Going on from a text while it is edited, against reading the whole edited text anew at every step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from tasks.small_models import TEXT, model_of
from tasks.small_writers import writer
from torch import Tensor

import glassformer as gf
from glassformer.errors import InputError
from glassformer.interpret.inputs import prepare
from glassformer.interpret.running import run_edited
from glassformer.interpret.spans import Texts
from glassformer.text.pipeline import TextPipeline
from glassformer.text.tokenizer import Tokenizer

PROMPT = "a man in blue shirt rides"
WORDS = '"blue shirt"'


def flipped(model: Any) -> Tensor:
    """What passes where the prompt is read from behind."""
    return gf.trace(model, prepare(model, PROMPT).text.ids.flip(1), "residual_post[0] @ *")["residual_post[0] @ *"]


GOING_ON: dict[str, Callable[[Any], list[Any]]] = {
    "steered everywhere": lambda model: [gf.steer("residual_post[0] @ *", torch.linspace(-1, 1, 32), 0.7)],
    "a layer is taken away": lambda model: [gf.ablate("feed_forward.output[1]", to="zero")],
    "at a word": lambda model: [gf.steer(f"residual_post[0] @ {WORDS}", torch.linspace(-1, 1, 32), 3.0)],
    "at the end": lambda model: [gf.ablate("residual_mid[1] @ end", to="zero")],
    "only what is written": lambda model: [gf.steer("residual_post[1] @ generated", torch.linspace(-1, 1, 32), 2.0)],
    "cut": lambda model: [gf.knockout("self_attention[*].head[0:3]", dst="*", src=WORDS)],
    "what is written is not seen": lambda model: [gf.knockout("self_attention[*]", dst="generated", src="*")],
    "a patch": lambda model: [gf.patch("residual_post[0] @ prompt", flipped(model))],
    "a pattern": lambda model: [gf.ablate("self_attention.pattern[*] @ *<-1:", to="zero")],
}  # fmt: skip


def read_anew(model: Any, edits: list[Any], count: int) -> list[int]:
    """The prompt and `count` tokens more, the whole edited text read at every step; `generated` is what is new."""
    prompt = prepare(model, PROMPT)
    texts, length = prompt.text, int(prompt.text.lengths[0])
    words = prompt.places(WORDS, "text").index[0].tolist()
    spans = {**texts.spans, "words": [(words[0], words[-1] + 1)]}
    as_name = [
        replace(edit, **{name: value.replace(WORDS, "words") for name, value in vars(edit).items() if name in
                         ("site", "src") and isinstance(value, str)})
        for edit in edits
    ]  # fmt: skip
    ids = texts.ids[0].tolist()
    for _ in range(count):
        longer = replace(
            prepare(model, [ids]), text=Texts(torch.tensor([ids]), torch.tensor([len(ids)]), spans, written=[length])
        )
        ids.append(int(run_edited(model, longer, None, as_name).logits[0, -1].argmax()))
    return ids[length:]


@pytest.mark.parametrize("way", GOING_ON)
def test_an_edited_text_goes_on_as_if_it_were_read_anew_at_every_step(way: str) -> None:
    model = writer()
    edits = GOING_ON[way](model)
    expected = read_anew(model, edits, 7)
    plain = list(model.generate(PROMPT, max_new_tokens=7, ignore_eos=True).ids)
    assert plain != expected, "the edit changes nothing"
    edited = gf.edited(model, PROMPT, edits)
    for _ in range(2):  # a text may be begun again
        assert list(edited.generate(PROMPT, max_new_tokens=7, ignore_eos=True).ids) == expected
    pieces = [piece.ids for piece in edited.stream(PROMPT, max_new_tokens=7, ignore_eos=True)]
    assert [token for ids in pieces for token in ids] == expected
    assert list(model.generate(PROMPT, max_new_tokens=7, ignore_eos=True).ids) == plain


def test_an_edited_text_is_read_as_one_as_well() -> None:
    """The edited model's other verbs begin at the text's beginning, too."""
    model = writer()
    edits = GOING_ON["at a word"](model)
    edited = gf.edited(model, PROMPT, edits)
    expected = model(PROMPT, edits=edits).logits
    for _ in range(2):
        assert torch.equal(edited(PROMPT).logits, expected)
    logprobs = expected[0].log_softmax(-1)
    ids = prepare(model, PROMPT).text.ids[0]
    wanted = logprobs[:-1].gather(1, ids[1:, None])[:, 0]
    torch.testing.assert_close(torch.tensor(edited.score(PROMPT).logprobs[-len(wanted) :]), wanted, atol=1e-4, rtol=0)


def test_values_for_each_position_do_not_reach_beyond_the_text() -> None:
    model = writer()
    for edit in (
        gf.patch("residual_post[0]", gf.trace(model, PROMPT, "residual_post[0]")),
        gf.ablate("residual_post[0]", to="mean", reference=[PROMPT, "two women eat"]),
    ):
        with pytest.raises(InputError, match=r"none for what is written after it: name 'prompt' instead of '\*'"):
            gf.edited(model, PROMPT, [edit]).generate(PROMPT, max_new_tokens=3, ignore_eos=True)
    vector = gf.patch("residual_post[0]", torch.zeros(32))
    gf.edited(model, PROMPT, [vector]).generate(PROMPT, max_new_tokens=3, ignore_eos=True)
    with pytest.raises(InputError, match="goes on from one text when it is edited, got 2"):
        gf.edited(model, [PROMPT, PROMPT], [vector])


def test_traces_go_on_with_the_edits() -> None:
    model, edit = writer(), gf.steer("residual_post[0]", torch.linspace(-1, 1, 32), 0.7)
    trace = gf.trace(model, PROMPT, "logits @ generated", "logits @ end", edits=[edit], generate=4)
    ids = gf.edited(model, PROMPT, [edit]).generate(PROMPT, max_new_tokens=4, ignore_eos=True).ids
    assert trace.inputs.text.ids[0, -4:].tolist() == list(ids)
    said = torch.cat((trace["logits @ end"], trace["logits @ generated"][0]))[:-1].argmax(-1)
    assert said.tolist() == list(ids) != list(model.generate(PROMPT, max_new_tokens=4, ignore_eos=True).ids)


def test_a_translator_goes_on_edited() -> None:
    model = model_of(Tokenizer.train([TEXT], "word", min_frequency=1), TextPipeline())
    source = "a man rides the bike"
    inputs = gf.trace(model, source, "logits", target="").inputs
    edit = gf.knockout("decoder.cross_attention[*]", dst="*", src="1:3")
    written = [model.config.bos_id]
    for _ in range(6):
        logits = run_edited(model, [inputs.source.ids[0].tolist()], [written], [edit]).logits
        written.append(int(logits[0, -1].argmax()))
        if written[-1] == model.config.eos_id:
            break
    edited = gf.edited(model, source, [edit], target="")
    found = edited.translate(source, beam=1, max_length=6)
    ids = model.tokenizer.encode(found.text)
    assert ids == [token for token in written[1:] if token != model.config.eos_id][: len(ids)] and ids
    assert found.text != model.translate(source, beam=1, max_length=6).text
    with pytest.raises(InputError, match="with edges cut .* beam=1"):
        edited.translate(source, beam=3)
    steered = gf.edited(
        model, source, [gf.steer("decoder.residual_post[-1]", torch.linspace(-1, 1, 16), 3.0)], target=""
    )
    shift = steered.translate(source, beam=3, max_length=6)
    assert shift.text != model.translate(source, beam=3, max_length=6).text


def test_a_beam_goes_on_edited() -> None:
    """Every hypothesis is edited at the same positions: what it was scored by is what the whole text gives."""
    model, edit = writer(), gf.steer("residual_post[0] @ generated", torch.linspace(-1, 1, 32), 2.0)
    found = gf.edited(model, PROMPT, [edit]).generate(PROMPT, beam=3, max_new_tokens=5, ignore_eos=True)
    texts = prepare(model, PROMPT).text
    ids, length = [*texts.ids[0].tolist(), *found.ids], texts.ids.shape[1]
    longer = Texts(torch.tensor([ids]), torch.tensor([len(ids)]), {}, written=[length])
    logits = run_edited(model, replace(prepare(model, [ids]), text=longer), None, [edit]).logits[0, length - 1 : -1]
    expected = logits.detach().log_softmax(-1).gather(1, torch.tensor(found.ids)[:, None])[:, 0]
    torch.testing.assert_close(torch.tensor(found.logprobs), expected, atol=1e-4, rtol=0)
