"""Streams: decoding ids as they come gives what decoding them all gives, and no character before it is whole."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from text.small_tokenizers import ALL, byte_level, fallback, own, wordpiece
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models

from glassformer.text.streaming import TextStream
from glassformer.text.tokenizer import Tokenizer


@pytest.mark.parametrize("name", ALL)
@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_a_stream_gives_what_decoding_all_gives(name, data):
    tokenizer = ALL[name]()
    text = data.draw(st.text(st.sampled_from("ab cde, '.é日🎉👩‍👩‍👧\u0301\ufffd\n▁"), max_size=20))
    loose = st.lists(st.integers(0, tokenizer.vocab_size + 1), max_size=12)
    ids = data.draw(loose) + tokenizer.encode(text) + data.draw(loose)
    skip = data.draw(st.booleans())
    whole = tokenizer.decode(ids, skip_specials=skip)
    stream = TextStream(tokenizer, skip_specials=skip)
    for _ in range(2):  # it begins anew after `finish`
        given_out = ""
        for i in ids:
            given_out += stream.push(i)
            assert whole.startswith(given_out)
        assert given_out + stream.finish() == whole


def test_a_stream_holds_incomplete_characters_back():
    for tokenizer in (byte_level(), fallback()):
        ids = tokenizer.encode("a🎉b")
        stream = TextStream(tokenizer)
        pieces = [stream.push(i) for i in ids]
        assert len(ids) > 3 and all("\ufffd" not in piece for piece in pieces)
        assert "".join(pieces) + stream.finish() == "a🎉b"
    cut = TextStream(byte_level())
    assert [cut.push(i) for i in byte_level().encode("🎉")[:-1]] == [""] * (len(byte_level().encode("🎉")) - 1)
    assert cut.finish() == "\ufffd"


def test_an_unknown_decoder_gives_its_text_at_the_end():
    backend = Backend(models.WordLevel({"a": 0, "b": 1}))
    backend.decoder = decoders.Sequence([decoders.Fuse(), decoders.Replace("ab", "x")])
    stream = TextStream(Tokenizer(backend))
    assert [stream.push(0), stream.push(1), stream.finish()] == ["", "", "x"]


def test_the_work_of_a_stream_does_not_grow(monkeypatch):
    for tokenizer in (own("bpe"), byte_level(), wordpiece()):
        longest = []
        decode = tokenizer.decode

        def watched(ids, decode=decode, longest=longest, **rest):
            longest.append(len(ids))
            return decode(ids, **rest)

        monkeypatch.setattr(tokenizer, "decode", watched)
        stream = TextStream(tokenizer)
        for i in tokenizer.encode("a b c, " * 50):
            stream.push(i)
        assert max(longest, default=0) <= 2
