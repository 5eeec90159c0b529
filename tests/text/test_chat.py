"""Chat templates: the text that transformers makes of the same messages, and errors in words."""

import json

import pytest
import tokenizers

from glassformer.errors import InputError
from glassformer.text.chat import ChatTemplate, read_chat_template

CHATML = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nBe brief.<|im_end|>\n' }}{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA = """{{ bos_token }}
{% for message in messages %}
    {% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{ raise_exception('Roles must alternate user/assistant/user/assistant/...') }}
    {% endif %}
    {% if message.role == 'user' %}
{{ '[INST] ' ~ message.content | trim ~ ' [/INST]' }}
    {% else %}
    {% generation %}
{{ ' ' + message.content + eos_token }}
    {% endgeneration %}
    {% endif %}
{% endfor %}"""
OTHER = """{%- set space = namespace(found=false) %}
{%- for message in messages if not space.found %}
    {%- if message.role == 'assistant' %}{% set space.found = true %}{% continue %}{% endif %}
    {{- {"role": message.role, "text": message.content} | tojson }} {{ message | tojson(indent=2) }}
{%- endfor %}
{%- if tools is none and not enable_thinking %}plain{% endif %}
{%- if strftime_now is defined %}{{ strftime_now('%%') }}{% endif %}"""
TALK = [
    {"role": "user", "content": " Hallo <b>&amp; 'Welt' \u00e4 "},
    {"role": "assistant", "content": "Guten Tag\n"},
    {"role": "user", "content": "Wie geht's?"},
]


@pytest.mark.parametrize("source", [CHATML, LLAMA, OTHER], ids=["chatml", "llama", "other"])
@pytest.mark.parametrize("open_answer", [True, False])
def test_as_transformers(source, open_answer):
    transformers = pytest.importorskip("transformers")
    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel({"<s>": 0, "</s>": 1}, unk_token="<s>"))
    oracle = transformers.PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>")
    for talk in (TALK, TALK[:1]):
        wanted = oracle.apply_chat_template(
            talk, chat_template=source, add_generation_prompt=open_answer, tokenize=False
        )
        made = ChatTemplate(source).render(talk, open_answer, bos_token="<s>", eos_token="</s>")
        assert made == wanted and "Hallo" in made


def test_generation_prompt_and_variables():
    template = ChatTemplate(CHATML)
    assert template.render(TALK[:1]).endswith("<|im_start|>assistant\n")
    assert template.render(TALK[:1], add_generation_prompt=False).endswith("<|im_end|>\n")
    assert ChatTemplate("{{ eos_token }}|{{ nothing }}|{{ mood }}").render([], eos_token="</s>", mood=3) == "</s>||3"


def test_messages_are_not_changed():
    talk = [dict(message) for message in TALK]
    with pytest.raises(InputError, match="refused the messages"):
        ChatTemplate("{{ messages.append(1) }}").render(talk)
    ChatTemplate("{% set x = messages[0] %}{{ x.content }}").render(talk)
    assert talk == TALK


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ messages.__class__.__base__.__subclasses__() }}",
        "{{ raise_exception.__globals__ }}",
        "{{ cycler.__init__.__globals__.os.popen('true').read() }}",
        "{{ range(10**9) | list }}",
    ],
)
def test_a_template_cannot_reach_out(source):
    try:
        text = ChatTemplate(source).render(TALK)
    except InputError:
        return
    assert text == "", "what is not allowed is undefined"


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([{"content": "a"}], "message 0 must have a 'role' and a 'content'"),
        ([TALK[0], {"role": "user"}], "message 1 must have"),
        (["hello"], "message 0 must have"),
        ([TALK[1]], "Roles must alternate"),
        ([{"role": "user", "content": 3}, {"role": "assistant", "content": 3}], "refused the messages"),
    ],
)
def test_bad_messages(messages, message):
    with pytest.raises(InputError, match=message):
        ChatTemplate(LLAMA).render(messages)


@pytest.mark.parametrize("source", ["{% for m in messages %}", "{{ 'a", "{% what %}", "{{ 1 | nofilter }}"])
def test_templates_that_cannot_be_read(source):
    with pytest.raises(InputError, match="the chat template, line 1 cannot be read"):
        ChatTemplate(source)


def test_reading_from_a_folder(tmp_path):
    assert read_chat_template(tmp_path) is None
    config = tmp_path / "tokenizer_config.json"
    for content, wanted in [
        ({"chat_template": "one"}, "one"),
        ({"chat_template": [{"name": "tool", "template": "x"}, {"name": "default", "template": "two"}]}, "two"),
        ({"chat_template": [{"name": "tool", "template": "x"}]}, None),
        ({}, None),
        ([], None),
    ]:
        config.write_text(json.dumps(content), encoding="utf-8")
        found = read_chat_template(tmp_path)
        assert (found and found.render([])) == wanted
    (tmp_path / "chat_template.jinja").write_text("three", encoding="utf-8")
    assert read_chat_template(tmp_path).source == "three"
    (tmp_path / "chat_template.jinja").unlink()
    config.write_text("{", encoding="utf-8")
    with pytest.raises(InputError, match="the chat template cannot be read"):
        read_chat_template(tmp_path)
