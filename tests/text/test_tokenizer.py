"""Tokenizers: text comes back, training is deterministic, special tokens stay special, broken files are named."""

import pickle
import re
from concurrent.futures import ThreadPoolExecutor

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from text.small_tokenizers import ALL, TEXTS, byte_level, fallback, own, wordpiece

from glassformer.errors import InputError
from glassformer.text.tokenizer import BOS, EOS, PAD, SPECIALS, UNK, Tokenizer


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


def test_training_is_deterministic_where_not_all_characters_fit():
    texts = ["".join(chr(0x4E00 + i) for i in range(start, start + 30)) for start in range(0, 300, 30)] + ["aa a"] * 3
    tokenizers_ = [Tokenizer.train(texts, "bpe", vocab_size=60, min_frequency=1) for _ in range(4)]
    assert all(one == tokenizers_[0] for one in tokenizers_)
    assert tokenizers_[0].vocab_size == 60 and UNK not in tokenizers_[0].encode("aa \u4e00")
    assert UNK in tokenizers_[0].encode(texts[9])


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


# --- Tokenizers of pretrained models ----------------------------------------------------------------------------------


@settings(deadline=None, max_examples=100)
@given(st.text(max_size=30))
def test_byte_level_tokenizers_keep_all_text(text):
    tokenizer = byte_level()
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.encode_all([text, "a"]) == [tokenizer.encode(text), tokenizer.encode("a")]


def test_frames_and_segments():
    tokenizer = wordpiece()
    a, b = tokenizer.id_of("a"), tokenizer.id_of("b")
    assert tokenizer.encode("a") == [a]
    assert tokenizer.encode("a", frame=True) == [2, a, 3]
    assert tokenizer.encode_all(["a", "b"], frame=True) == [[2, a, 3], [2, b, 3]]
    assert tokenizer.encode_pair("a", "b b") == ([2, a, 3, b, b, 3], [0, 0, 0, 1, 1, 1])
    assert tokenizer.decode([2, a, 3, b, 3, 0]) == "a b"
    assert tokenizer.decode([2, a, 3], skip_specials=False) == "[CLS] a [SEP]"
    assert own("bpe").encode("a man", frame=True) == own("bpe").encode("a man")


def test_special_tokens_are_read_only_when_asked():
    tokenizer = wordpiece()
    assert tokenizer.encode("a [MASK]", read_specials=True) == [tokenizer.id_of("a"), 4]
    assert tokenizer.encode_all(["[MASK]"], frame=True, read_specials=True) == [[2, 4, 3]]
    assert tokenizer.encode_pair("[MASK]", "a", read_specials=True)[0][1] == 4
    assert not tokenizer.special_ids - {tokenizer.unk_id} & set(tokenizer.encode("a [MASK] [SEP]"))
    assert own("bpe").encode("</s>", read_specials=True) == [EOS]
    assert own("bpe").encode("</s>") != [EOS]
    # A unigram model has "</s>" among its pieces and would find it in the text.
    ids, segments = fallback().encode_pair("</s>", "a</s>")
    assert 1 not in ids and 1 not in fallback().encode("</s>") and len(ids) == len(segments)
    assert fallback().decode(fallback().encode("</s>")) == "</s>"
    assert fallback().encode("</s>", read_specials=True) == [1]


def test_roles():
    tokenizer = wordpiece()
    assert (tokenizer.pad_id, tokenizer.unk_id, tokenizer.cls_id, tokenizer.sep_id, tokenizer.mask_id) == (
        0,
        1,
        2,
        3,
        4,
    )
    assert (tokenizer.bos_id, tokenizer.eos_id) == (None, None)
    assert tokenizer.special_ids == frozenset(range(5))
    mine = own("bpe")
    assert (mine.pad_id, mine.bos_id, mine.eos_id, mine.unk_id, mine.mask_id, mine.cls_id) == (0, 1, 2, 3, None, None)
    assert mine.special_ids == frozenset(range(4))
    backend = tokenizers.Tokenizer.from_str(mine._backend.to_str())
    named = Tokenizer(backend, specials={"eos": "▁A"})
    assert named.eos_id == named.id_of("▁A") and named.eos_id in named.special_ids
    with pytest.raises(InputError, match="'eso' is no role of a special token"):
        Tokenizer(backend, specials={"eso": "</s>"})
    with pytest.raises(InputError, match="eos token must be in the vocabulary"):
        Tokenizer(backend, specials={"eos": "<nothing>"})


@pytest.mark.parametrize("name", ALL)
def test_tokenizers_are_saved_loaded_and_copied(name, tmp_path):
    tokenizer = ALL[name]()
    tokenizer.save(tmp_path / "tokenizer.json")
    text = "a b </s> [MASK] 🎉"
    for other in (Tokenizer.load(tmp_path / "tokenizer.json"), pickle.loads(pickle.dumps(tokenizer))):
        assert other == tokenizer
        assert other.kind == tokenizer.kind
        assert (other.specials, other.special_ids) == (tokenizer.specials, tokenizer.special_ids)
        assert other.encode(text) == tokenizer.encode(text)


def test_roles_of_unusual_names_are_told(tmp_path):
    path = tmp_path / "tokenizer.json"
    assert own("bpe").unusual_roles == wordpiece().unusual_roles == {}
    backend = tokenizers.Tokenizer.from_str(own("bpe")._backend.to_str())
    named = Tokenizer(backend, specials={"eos": "▁A", "bos": "<s>"})
    assert named.unusual_roles == {"eos": "▁A"}
    named.save(path)
    loaded = Tokenizer.load(path, specials=named.unusual_roles)
    assert (loaded.specials, loaded.special_ids) == (named.specials, named.special_ids)


def test_ids_without_a_token_and_text_that_is_none():
    assert wordpiece().decode([5, 10**6, -100]) == "a"
    with pytest.raises(InputError, match="lone surrogates"):
        wordpiece().encode("\ud800")
    with pytest.raises(InputError, match="lone surrogates"):
        wordpiece().encode_all(["\ud800"])


def test_threads_do_not_mix_reading_special_tokens():
    tokenizer = wordpiece()

    def work(read):
        return all((4 in tokenizer.encode("a [MASK] b", read_specials=read)) is read for _ in range(300))

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, [True, False] * 4))
