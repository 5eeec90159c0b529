"""BERT's tokenizer trained on one's own text: the same each time, longest pieces first, as transformers reads it."""

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glassformer.errors import InputError
from glassformer.text.pretrained import tokenizer_files
from glassformer.text.tokenizer import Tokenizer
from glassformer.text.wordpiece import SPECIALS, train_wordpiece

WORDS = ["read", "reader", "reading", "lead", "leader", "bread", "Äpfel", "a.b", "won't"]
DRAW = random.Random(0)
TEXTS = [" ".join(DRAW.choice(WORDS) for _ in range(9)) for _ in range(40)]


def vocabulary(tokenizer: Tokenizer) -> list[str]:
    return tokenizer.tokens(range(tokenizer.vocab_size))


def test_training_is_deterministic_where_many_pairs_are_as_frequent() -> None:
    letters = [" ".join("".join(DRAW.sample("abcdefghijklm", 6)) for _ in range(20)) for _ in range(20)]
    for vocab_size in (40, 200):
        tokenizers = [train_wordpiece(iter(letters), vocab_size, 1) for _ in range(5)]
        assert all(tokenizer == tokenizers[0] for tokenizer in tokenizers)
    assert len({train_wordpiece(letters, 200, 1).vocab_size for _ in range(3)}) == 1


def test_it_is_berts() -> None:
    tokenizer = train_wordpiece(TEXTS, 120, 1)
    pieces = vocabulary(tokenizer)
    assert pieces[:5] == list(SPECIALS) and len(set(pieces)) == len(pieces) <= 120
    assert {"read", "lead", "##er", "won", "'"} <= set(pieces)
    assert not any(piece in pieces for piece in ("##.", "##'", "a.b"))  # marks stand alone
    assert tokenizer.special_ids == set(range(5))
    assert (tokenizer.pad_id, tokenizer.cls_id, tokenizer.sep_id, tokenizer.mask_id) == (0, 2, 3, 4)
    assert tokenizer.frame([9]) == [2, 9, 3] == tokenizer.encode(pieces[9], frame=True)
    assert tokenizer.encode("[MASK]") != [4] and tokenizer.encode("[MASK]", read_specials=True) == [4]
    assert tokenizer.decode(tokenizer.encode("breading leader")) == "breading leader"


def test_words_are_cut_into_the_longest_pieces_known() -> None:
    tokenizer = train_wordpiece(TEXTS, 90, 1)
    known = set(vocabulary(tokenizer))

    def greedy(word: str) -> list[str]:
        found: list[str] = []
        while word:
            ends = [end for end in range(len(word), 0, -1) if ("##" if found else "") + word[:end] in known]
            if not ends:
                return ["[UNK]"]
            found.append(("##" if found else "") + word[: ends[0]])
            word = word[ends[0] :]
        return found

    for word in ("reader", "breading", "leaderread", "dear", "zread", "readz"):
        assert tokenizer.tokens(tokenizer.encode(word)) == greedy(word)
    assert tokenizer.tokens(tokenizer.encode("readz lead")) == ["[UNK]", "lead"]


def test_case_and_accents() -> None:
    kept, lower = train_wordpiece(TEXTS, 120, 1), train_wordpiece(TEXTS, 120, 1, lowercase=True)
    assert kept.decode(kept.encode("Äpfel")) == "Äpfel"
    assert lower.encode("ÄPFEL Read") == lower.encode("apfel read")
    assert kept.encode("Read") != kept.encode("read")


def test_rare_letters_make_way() -> None:
    tokenizer = train_wordpiece(["aaaa bbb cc d", "aa bb"], 13, 1)  # a quarter of 8: two letters
    assert {piece.removeprefix("##") for piece in vocabulary(tokenizer)[5:9]} == {"a", "b"}
    assert tokenizer.tokens(tokenizer.encode("cc a")) == ["[UNK]", "a"]


def test_rare_pairs_are_left_out() -> None:
    assert "once" not in vocabulary(train_wordpiece(["once twice", "twice"], 100, 2))
    assert {"once", "twice"} <= set(vocabulary(train_wordpiece(["once twice", "twice"], 100, 1)))


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.text("abcD.,é日 \n", min_size=1, max_size=12), min_size=1, max_size=6),
    st.integers(7, 60),
    st.booleans(),
)
def test_any_text_gives_a_tokenizer_within_its_size_or_is_refused(texts: list[str], size: int, lower: bool) -> None:
    if not "".join(texts).split():
        with pytest.raises(InputError, match="texts without any token"):
            train_wordpiece(texts, size, 1, lower)
        return
    tokenizer = train_wordpiece(texts, size, 1, lower)
    assert tokenizer == train_wordpiece(texts, size, 1, lower)
    assert len(SPECIALS) < tokenizer.vocab_size <= size
    for text in texts:
        assert not set(tokenizer.encode(text)) & {0, 2, 3, 4}


def test_what_cannot_be_trained() -> None:
    with pytest.raises(InputError, match="'vocab_size' must be at least 7, with 5 special tokens; got 6"):
        train_wordpiece(TEXTS, 6)
    for texts in ([], [" \n"]):
        with pytest.raises(InputError, match="texts without any token"):
            train_wordpiece(texts)


@pytest.mark.parametrize("lowercase", [False, True])
def test_transformers_reads_the_same(tmp_path: Path, lowercase: bool) -> None:
    transformers = pytest.importorskip("transformers", reason="the oracle is the package transformers")
    tokenizer = train_wordpiece(TEXTS, 100, 1, lowercase)
    tokenizer_files(tokenizer, tmp_path, model_max_length=64)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for text in ("Reading a.b, won't?", "ÄPFEL  lead", "zzz", ""):
        assert theirs(text)["input_ids"] == tokenizer.encode(text, frame=True)
    ids, segments = tokenizer.encode_pair("read", "leader b")
    both = theirs("read", "leader b")
    assert (both["input_ids"], both["token_type_ids"]) == (ids, segments)
