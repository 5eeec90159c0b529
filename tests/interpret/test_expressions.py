"""The grammar for places in a network: every form that there is, and every error with what to do about it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from interpret.all_families import case

from glassformer.errors import InputError
from glassformer.interpret.expressions import numbers, parse, parse_attention


def decoder() -> Any:
    return case("rotary, shared keys").network


def translator() -> Any:
    return case("encoder-decoder").network


# --- Forms ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "names", "heads", "kind", "at", "of"),
    [
        ("residual_post[1] @ end", ["residual_post[1]"], None, "stream", "end", None),
        ("  residual_post [1]   @  subject.last  ", ["residual_post[1]"], None, "stream", "subject.last", None),
        ("residual_post[-1]@end", ["residual_post[2]"], None, "stream", "end", None),
        ("residual_pre[:]", [f"residual_pre[{i}]" for i in range(3)], None, "stream", "*", None),
        ("residual_pre[*] @ *", [f"residual_pre[{i}]" for i in range(3)], None, "stream", "*", None),
        ("norm_1.scale[1:] @ 0:2", ["norm_1.scale[1]", "norm_1.scale[2]"], None, "stream", "0:2", None),
        ("feed_forward.pre[2,0] @ -1", ["feed_forward.pre[2]", "feed_forward.pre[0]"], None, "stream", "-1", None),
        ("self_attention.mixed[0].head[1:3] @ *", ["self_attention.mixed[0]"], (1, 2), "heads", "*", None),
        ("self_attention.key[0].head[*]", ["self_attention.key[0]"], (0, 1), "heads", "*", None),
        ("self_attention.pattern[0] @ end<-subject", ["self_attention.pattern[0]"], None, "pattern", "end", "subject"),
        ("self_attention.pattern[0].head[-1] @ end <- *", ["self_attention.pattern[0]"], (3,), "pattern", "end", "*"),
        ("self_attention.scores[0] @ end", ["self_attention.scores[0]"], None, "pattern", "end", "*"),
        ("self_attention.scores[0]", ["self_attention.scores[0]"], None, "pattern", "*", "*"),
        ('self_attention.scores[0] @ "a<-b"<-"c"', ["self_attention.scores[0]"], None, "pattern", '"a<-b"', '"c"'),
        ('logits @ "a + b" + end', ["logits"], None, "stream", '"a + b" + end', None),
        ("embedding.token @ prompt", ["embedding.token"], None, "stream", "prompt", None),
    ],
)  # fmt: skip
def test_forms(text: str, names: list[str], heads: Any, kind: str, at: str, of: str | None) -> None:
    found = parse(text, decoder())
    assert (list(found.names), found.heads, found.kind, found.at, found.of) == (names, heads, kind, at, of)


@pytest.mark.parametrize(
    ("text", "side", "key_side"),
    [
        ("encoder.residual_post[0]", "source", "source"),
        ("encoder.self_attention.pattern[0]", "source", "source"),
        ("decoder.residual_post[0]", "text", "text"),
        ("decoder.self_attention.pattern[0]", "text", "text"),
        ("decoder.cross_attention.query[0]", "text", "source"),
        ("decoder.cross_attention.mixed[0]", "text", "source"),
        ("decoder.cross_attention.key[0]", "source", "source"),
        ("decoder.cross_attention.value[0]", "source", "source"),
        ("decoder.cross_attention.pattern[0]", "text", "source"),
        ("logits", "text", "text"),
    ],
)
def test_the_text_that_positions_count_in(text: str, side: str, key_side: str) -> None:
    found = parse(text, translator())
    assert (found.side, found.key_side) == (side, key_side)


def test_logits_of_a_whole_text_are_rows() -> None:
    assert parse("logits", case("classifier").network).kind == "rows"
    assert parse("logits @ end", case("sentence").network).kind == "rows"
    assert parse("logits", case("tagger").network).kind == "stream"
    with pytest.raises(InputError, match="one row of logits for a text; leave the span out"):
        parse("logits @ 0", case("classifier").network)


def test_a_relative_bias_is_a_pattern_outside_of_layers() -> None:
    found = parse("relative.bias.head[1]", case("relative positions").network)
    assert (found.names, found.kind, found.heads) == (("relative.bias",), "pattern", (1,))


def test_recurrent_networks_have_one_head() -> None:
    network = case("LSTM").network
    assert parse("decoder.cross_attention.pattern.head[0] @ end", network).heads == (0,)
    with pytest.raises(InputError, match="there are 1 heads, numbered from 0; got 1"):
        parse("decoder.cross_attention.pattern.head[1]", network)


# --- Errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("residual_pots[1] @ end", r"no site 'residual_pots'.*[Dd]id you mean.*residual_post"),
        ("decoder.residual_post[1]", r"no site 'decoder.residual_post'.*residual_post"),
        ("self_attention[1]", "no site 'self_attention'"),
        ("residual_post[3]", r"there are 3 layers, numbered from 0; got 3"),
        ("residual_post[-4]", r"there are 3 layers, numbered from 0; got -4"),
        ("residual_post[0,9]", r"there are 3 layers, numbered from 0; got 9"),
        ("residual_post[3:]", r"'3:' names none of the 3 layers"),
        ("residual_post[2:1]", r"'2:1' names none of the 3 layers"),
        ("residual_post[]", r"'' does not name layers; write 3, 0:4, 1,5 or \*"),
        ("residual_post[one]", "'one' does not name layers"),
        ("residual_post[0:1:0]", "'0:1:0' does not name layers"),
        ("residual_post[1.5]", "'1.5' does not name layers"),
        ("residual_post @ end", r"say the layers of 'residual_post', of 3: 'residual_post\[0\]'"),
        ("logits[0]", r"'logits' does not stand in layers; write it without \[0\]"),
        ("residual_post[0].head[0]", "'residual_post' has no heads; heads are of query"),
        ("logits.head[0]", "'logits' has no heads"),
        ("self_attention.query[0].head[4]", "there are 4 heads, numbered from 0; got 4"),
        ("self_attention.key[0].head[2]", "there are 2 heads of keys and values, numbered from 0; got 2"),
        ("residual_post[0] @ end<-subject", "only scores and patterns have a '<-'"),
        ("self_attention.pattern[0] @ end<-0<-1", "write one span, or two as 'to<-from'"),
        ("self_attention.pattern[0] @ end<-", "write one span, or two as 'to<-from'"),
        ("self_attention.pattern[0] @ <-end", "write one span, or two as 'to<-from'"),
        ("residual_post[0] @", "is no expression for a site: an example is"),
        ("residual post[0]", "is no expression for a site"),
        ("residual_post[0", "is no expression for a site"),
        ("", "is no expression for a site"),
        (7, "7 is no expression for a site"),
    ],
)
def test_errors(text: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse(text, decoder())


# --- Attentions whose edges are cut -----------------------------------------------------------------------------------


def test_attentions() -> None:
    assert parse_attention("self_attention[0:2]", decoder()) == (("self_attention[0]", "self_attention[1]"), None)
    assert parse_attention("self_attention[-1].head[1,3]", decoder()) == (("self_attention[2]",), (1, 3))
    names, heads = parse_attention("decoder.cross_attention[*].head[2]", translator())
    assert (names, heads) == (("decoder.cross_attention[0]", "decoder.cross_attention[1]"), (2,))
    assert parse_attention("decoder.cross_attention", case("LSTM").network) == (("decoder.cross_attention",), None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("self_atention[0]", "no attention 'self_atention'.*self_attention"),
        ("self_attention.pattern[0]", "no attention 'self_attention.pattern'"),
        ("self_attention[0] @ end", "said by 'dst' and 'src', not behind '@'"),
        ("self_attention[9]", "there are 3 layers"),
        ("self_attention", "say the layers of 'self_attention'"),
        ("self_attention[0].head[4]", "there are 4 heads"),
    ],
)
def test_errors_of_attentions(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_attention(text, decoder())


def test_networks_without_attention_say_so() -> None:
    with pytest.raises(InputError, match="the model has no attention"):
        parse_attention("self_attention[0]", case("without attention").network)


# --- Indices ----------------------------------------------------------------------------------------------------------

end = st.none() | st.integers(-9, 9)
step = st.none() | st.integers(-3, 3).filter(bool)


def written(*parts: int | None) -> str:
    return ":".join("" if part is None else str(part) for part in parts)


@given(count=st.integers(1, 7), parts=st.tuples(end, end) | st.tuples(end, end, step))
def test_slices_are_those_of_python(count: int, parts: tuple[int | None, ...]) -> None:
    expected = list(range(count))[slice(*parts)]
    if expected:
        assert list(numbers("x", written(*parts), count, "layers")) == expected
    else:
        with pytest.raises(InputError, match="names none of"):
            numbers("x", written(*parts), count, "layers")


@given(count=st.integers(1, 7), chosen=st.lists(st.integers(-9, 9), min_size=1, max_size=4))
def test_lists_keep_their_order_and_name_each_once(count: int, chosen: list[int]) -> None:
    text = " , ".join(map(str, chosen))
    if all(-count <= each < count for each in chosen):
        assert list(numbers("x", text, count, "heads")) == list(dict.fromkeys(each % count for each in chosen))
    else:
        with pytest.raises(InputError, match=f"there are {count} heads"):
            numbers("x", text, count, "heads")
