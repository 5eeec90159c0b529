"""Tokenizers: text comes back, training is deterministic, special tokens stay special, broken files are named."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glassformer.errors import InputError
from glassformer.text.tokenizer import BOS, EOS, PAD, SPECIALS, UNK, Tokenizer

TEXTS = [
    "A man in a blue shirt is riding a bike.",
    "Two dogs, one brown & one white, don't play (together)...",
    "ein mann fährt fahrrad , sagt man &apos;s t-shirt .",
    "Zwei junge Männer: „Was für ein Tag!“",
    "24. November 2026 — ٢٤ نوفمبر ٢٠٢٦ 2026年11月24日",
] * 3


@pytest.fixture(scope="module", params=["bpe", "word", "character"])
def tokenizer(request):
    return Tokenizer.train(TEXTS, request.param, vocab_size=400, min_frequency=1)


def test_text_comes_back(tokenizer):
    for text in TEXTS:
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_encoding_many_equals_encoding_each(tokenizer):
    assert tokenizer.encode_all(TEXTS) == [tokenizer.encode(text) for text in TEXTS]
    assert tokenizer.encode_all([]) == []
    assert tokenizer.encode("") == []
    assert tokenizer.decode([]) == ""


def test_specials(tokenizer):
    assert (PAD, BOS, EOS, UNK) == (0, 1, 2, 3)
    assert tokenizer.tokens([PAD, BOS, EOS, UNK]) == list(SPECIALS)
    ids = tokenizer.encode(TEXTS[0])
    assert all(UNK < i < tokenizer.vocab_size for i in ids)
    assert tokenizer.decode([BOS, *ids, EOS, PAD, PAD]) == TEXTS[0]
    for text in ("</s>", "a <s> b", "<pad>"):
        assert not {PAD, BOS, EOS} & set(tokenizer.encode(text))
    assert UNK in tokenizer.encode("Ѧ")
    assert "<unk>" in tokenizer.decode(tokenizer.encode("Ѧ"))


def test_training_is_deterministic(tokenizer):
    assert Tokenizer.train(iter(TEXTS), tokenizer.kind, vocab_size=400, min_frequency=1) == tokenizer
    smaller = Tokenizer.train(TEXTS, tokenizer.kind, vocab_size=40, min_frequency=1)
    assert smaller != tokenizer
    assert smaller.vocab_size == 40


def test_saving_and_loading(tokenizer, tmp_path):
    tokenizer.save(tmp_path / "tokenizer.json")
    loaded = Tokenizer.load(tmp_path / "tokenizer.json")
    assert loaded == tokenizer
    assert (loaded.kind, loaded.vocab_size) == (tokenizer.kind, tokenizer.vocab_size)
    assert loaded.encode_all([*TEXTS, "</s> <s>"]) == tokenizer.encode_all([*TEXTS, "</s> <s>"])


WORDS = st.text(st.sampled_from("abcdef.,!?'-(&;äß▲日ا0123"), min_size=1, max_size=9)


@settings(deadline=None, max_examples=100)
@given(st.lists(WORDS, min_size=1, max_size=8))
def test_any_text_with_single_spaces_comes_back(words):
    text = " ".join(words)
    for kind in ("bpe", "word", "character"):
        tokenizer = Tokenizer.train([text, "other text, ab bc cd ab."], kind, vocab_size=80, min_frequency=1)
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_characters_keep_all_white_space():
    text = " a  b\tc\u202fd\n"
    tokenizer = Tokenizer.train([text], "character", vocab_size=30, min_frequency=1)
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.tokens(tokenizer.encode("a b")) == ["a", " ", "b"]


def test_bpe_isolates_punctuation_but_not_within_words():
    text = "Yes, sir (no)... don't! t-shirt yes , sir &apos;s 3.5"
    tokenizer = Tokenizer.train([text] * 5, "bpe", vocab_size=300, min_frequency=2)
    tokens = "▁Yes , ▁sir ▁( no ) ... ▁don't ! ▁t-shirt ▁yes ▁, ▁sir ▁&apos; s ▁3.5"
    assert " ".join(tokenizer.tokens(tokenizer.encode(text))) == tokens


def test_bpe_merges_what_is_frequent():
    tokenizer = Tokenizer.train(["low low low low lower newest newest newest"], "bpe", 60, 2)
    assert tokenizer.tokens(tokenizer.encode("low newest lowest")) == ["▁low", "▁newest", "▁low", "est"]


def test_min_frequency_and_size_cut_the_vocabulary():
    texts = ["a a a b b c"]
    assert Tokenizer.train(texts, "word", 100, 2).tokens([4, 5]) == ["a", "b"]
    assert Tokenizer.train(texts, "word", 100, 2).vocab_size == 6
    assert Tokenizer.train(texts, "word", 5, 1).vocab_size == 5
    assert Tokenizer.train(["abcdefgh " * 3], "bpe", 8, 1).vocab_size <= 8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((["a"], "wrod", 100, 1), r"one of bpe, word, character, got 'wrod'\. Did you mean 'word'\?"),
        ((["a"], "word", 4, 1), "more than the 4 special tokens, got 4"),
        (([], "bpe", 100, 1), "without any token"),
        ((["a b"], "word", 100, 2), "without any token"),
    ],
)
def test_training_with_bad_input(arguments, message):
    with pytest.raises(InputError, match=message):
        Tokenizer.train(*arguments)


def test_loading_broken_files(tmp_path):
    path = tmp_path / "tokenizer.json"
    with pytest.raises(InputError, match=re.escape(str(path)) + ".*no such tokenizer"):
        Tokenizer.load(path)
    Tokenizer.train(TEXTS, "bpe", 300, 1).save(path)
    whole = path.read_text(encoding="utf-8")
    path.write_text(whole[: len(whole) // 2], encoding="utf-8")
    with pytest.raises(InputError, match="not a whole tokenizer file"):
        Tokenizer.load(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="not UTF-8"):
        Tokenizer.load(path)
    path.write_text(whole.replace("<pad>", "[PAD]"), encoding="utf-8")
    with pytest.raises(InputError, match=re.escape(str(path)) + ".*must have <pad> as id 0"):
        Tokenizer.load(path)


def test_tokens_of_ids_outside_the_vocabulary(tokenizer):
    with pytest.raises(InputError, match=rf"\[0, {tokenizer.vocab_size}\)"):
        tokenizer.tokens([tokenizer.vocab_size])


def test_text_that_spells_a_special_token_comes_back():
    text = "a </s> b<pad> <unk>"
    for kind in ("bpe", "character"):
        tokenizer = Tokenizer.train([text], kind, vocab_size=80, min_frequency=1)
        ids = tokenizer.encode(text)
        assert min(ids) > UNK
        assert tokenizer.decode(ids) == text
