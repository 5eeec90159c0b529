"""Chat: the template makes the prompt; a conversation gives what a fresh chat gives, reading only what is new."""

from typing import Any

import pytest
from tasks.small_writers import TEMPLATE, writer

from glassformer.errors import InputError
from glassformer.tasks.chat import Conversation
from glassformer.tasks.model import Model


def said(conversation: Conversation, text: str, **settings: Any) -> str:
    return "".join(piece.text for piece in conversation.say(text, **settings))


def counted(model: Model) -> list[int]:
    """How many new ids each call of the network brings, from now on."""
    widths: list[int] = []
    step = model.network.step

    def count(ids: Any, lengths: Any, state: Any) -> Any:
        widths.append(ids.shape[1])
        return step(ids, lengths, state)

    object.__setattr__(model.network, "step", count)
    return widths


def test_a_chat_answers_the_rendered_messages() -> None:
    model = writer()
    messages = [{"role": "system", "content": "be"}, {"role": "user", "content": "a man"}]
    answer = model.chat(messages, max_new_tokens=6)
    assert answer.ids == model.generate("s:be\nu:a man\na:", max_new_tokens=6).ids
    assert answer.text == model.tokenizer.decode(answer.ids)
    with pytest.raises(InputError, match="at least one message"):
        model.chat([])
    with pytest.raises(InputError, match="'role' and a 'content'"):
        model.chat([{"role": "user"}])


def test_without_a_template() -> None:
    model = writer(template="")
    for wrong in (lambda: model.chat([{"role": "user", "content": "a"}]), model.conversation):
        with pytest.raises(InputError, match="no chat template"):
            wrong()


def test_a_conversation_gives_what_a_fresh_chat_gives() -> None:
    model = writer(positions=300)
    conversation = model.conversation("be")
    for text, settings in (
        ("a man", {}),
        ("two women eat", {"temperature": 1.0, "seed": 4}),
        ("bike", {"max_new_tokens": 1}),
        ("日本", {"stop": "e"}),
    ):
        settings = {"max_new_tokens": 12, **settings}
        answer = said(conversation, text, **settings)
        assert conversation.messages[-2:] == [
            {"role": "user", "content": text},
            {"role": "assistant", "content": answer},
        ]
        assert model.chat(conversation.messages[:-1], **settings).text == answer
    assert len(conversation.messages) == 9


def test_only_what_is_new_is_read() -> None:
    model = writer(positions=200)
    conversation = model.conversation()
    widths = counted(model)
    try:
        said(conversation, "a man", max_new_tokens=5, logit_bias={i: -100 for i in range(110, 300)})
        read = len(conversation._read)
        said(conversation, "two", max_new_tokens=5)
    finally:
        del model.network.__dict__["step"]
    prompt = len(model.tokenizer.encode("u:a man\na:"))
    assert widths[0] == prompt and widths[1:5] == [1] * 4
    whole = len(model.tokenizer.encode(_rendered(conversation.messages[:-1])))
    assert read == prompt + 4 and widths[5] < whole - prompt + 1


def _rendered(messages: list[dict[str, str]]) -> str:
    return "".join(f"{message['role'][0]}:{message['content']}\n" for message in messages) + "a:"


def test_an_answer_that_is_left_is_kept_as_far_as_it_came() -> None:
    model = writer(positions=300)
    conversation = model.conversation()
    answer = conversation.say("a man", max_new_tokens=20)
    assert conversation.messages == []
    parts = [next(answer).text for _ in range(5)]
    assert conversation.messages[1] == {"role": "assistant", "content": "".join(parts)}
    answer.close()  # type: ignore[attr-defined]
    half = conversation.say("two", max_new_tokens=20)
    parts = [next(half).text for _ in range(3)]
    following = said(conversation, "bike", max_new_tokens=6)  # the half answer ends here
    assert list(half) == [] and conversation.messages[3]["content"] == "".join(parts)
    assert model.chat(conversation.messages[:-1], max_new_tokens=6).text == following


@pytest.mark.parametrize("after", [0, 3])
def test_an_interruption_inside_the_network(after: int) -> None:
    model = writer(positions=300)
    conversation = model.conversation()
    first = said(conversation, "a man", max_new_tokens=6)
    calls, step = [0], model.network.step

    def interrupted(ids: Any, lengths: Any, state: Any) -> Any:
        calls[0] += 1
        if calls[0] > after:
            state.advance(ids.shape[1], lengths)  # positions are taken, but nothing is written
            raise KeyboardInterrupt
        return step(ids, lengths, state)

    object.__setattr__(model.network, "step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        said(conversation, "two women", max_new_tokens=12)
    del model.network.__dict__["step"]
    assert len(conversation.messages) == (2 if after == 0 else 4)
    assert conversation.messages[1]["content"] == first
    answer = said(conversation, "bike", max_new_tokens=6)
    assert model.chat(conversation.messages[:-1], max_new_tokens=6).text == answer


def test_a_conversation_outgrows_the_positions() -> None:
    model = writer(positions=48)
    conversation = model.conversation("be")
    with pytest.raises(InputError, match="the conversation has .* reads at most 48 .*drop_oldest=True"):
        for _ in range(20):
            said(conversation, "a man", max_new_tokens=8)
    kept = conversation.messages
    assert kept[-1]["role"] == "assistant"
    conversation = model.conversation("be", drop_oldest=True)
    for number in range(8):
        answer = said(conversation, f"a man {number}", max_new_tokens=8)
        assert model.chat(conversation.messages[:-1], max_new_tokens=8).text == answer
    assert conversation.messages[0] == {"role": "system", "content": "be"}
    assert conversation.messages[-2]["content"] == "a man 7" and len(conversation.messages) < 17
    with pytest.raises(InputError, match="shorten the message"):
        conversation.say("a man " * 40)
    assert conversation.messages[-2]["content"] == "a man 7"


def test_what_is_wrong_is_said_at_once() -> None:
    conversation = writer().conversation()
    with pytest.raises(InputError, match="'temperature'"):
        conversation.say("a", temperature=-1)
    with pytest.raises(InputError, match="beam=1"):
        conversation.say("a", beam=3)
    assert conversation.messages == [] and "role" in TEMPLATE
