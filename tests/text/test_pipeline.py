"""The text pipeline reproduces the published preparation of Multi30k, and is undone on the way out."""

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glassformer.errors import InputError
from glassformer.settings import from_mapping, to_mapping
from glassformer.text.pipeline import TextPipeline

SHARED = Path(os.environ.get("GLASSFORMER_SHARED") or Path(__file__).parents[2] / ".." / "shared")
MULTI30K = SHARED / "data" / "multi30k"
needs_multi30k = pytest.mark.skipif(
    not MULTI30K.is_dir(), reason=f"no Multi30k in {SHARED}; set GLASSFORMER_SHARED to the folder that holds data/"
)
MOSES = TextPipeline("en", "de", lowercase=True, moses=True)
CASED = TextPipeline("en", "de", moses=True)


def lines(name, first=2000):
    return (MULTI30K / name).read_text(encoding="utf-8").split("\n")[:-1][:first]


@needs_multi30k
@pytest.mark.parametrize("split", ["val", "test_2016_flickr", "train"])
@pytest.mark.parametrize("language", ["en", "de"])
def test_it_gives_the_published_tokens_of_multi30k(split, language):
    prepare = MOSES.prepare_source if language == "en" else MOSES.prepare_target
    raw, published = lines(f"raw/{split}.{language}"), lines(f"tok/{split}.lc.norm.tok.{language}")
    assert len(raw) == len(published) >= 1000
    same = sum(prepare(text) == wanted for text, wanted in zip(raw, published, strict=True))
    assert same / len(raw) >= 0.998


@needs_multi30k
def test_what_was_tokenised_comes_back():
    raw = lines("raw/test_2016_flickr.de")
    same = sum(CASED.finish_target(CASED.prepare_target(text)) == text for text in raw)
    assert same / len(raw) >= 0.99


def test_moses_by_hand():
    assert MOSES.prepare_source("A woman's \u201cdog\u201d, isn't it?") == (
        "a woman &apos;s &quot; dog , &quot; isn &apos;t it ?"
    )
    assert MOSES.finish_target("er sagt : &quot; ja , klar ! &quot;") == 'er sagt: "ja, klar!"'
    assert CASED.prepare_target("Das ist gut.") == "Das ist gut ."


def test_without_options_only_white_space_and_unicode_are_normalised():
    plain = TextPipeline()
    assert plain.prepare_source("  It's \u202f A\tTest\u3000.\n") == "It's A Test ."
    assert plain.prepare_target("u\u0308ber \u200f٢٤\u200e\ufeff") == "über ٢٤"
    assert plain.prepare_source("سه\u200cشنبه") == "سه\u200cشنبه"
    assert plain.finish_target(" a  b. ") == "a b."
    assert TextPipeline(unicode="NFKC").prepare_source("ﬁn ２") == "fin 2"
    assert TextPipeline(unicode="none").prepare_source("u\u0308 ﬁ") == "u\u0308 ﬁ"
    assert TextPipeline(lowercase=True).prepare_target("ÄÖ Ab") == "äö ab"


@pytest.mark.parametrize("pipeline", [MOSES, CASED, TextPipeline(), TextPipeline(lowercase=True)])
def test_nothing_stays_nothing(pipeline):
    for text in ("", "  ", "\u200e\n"):
        assert pipeline.prepare_source(text) == pipeline.prepare_target(text) == pipeline.finish_target("  ") == ""


@settings(deadline=None, max_examples=50)
@given(st.text(max_size=30))
def test_prepared_text_is_one_line_with_single_spaces(text):
    for pipeline in (MOSES, TextPipeline(lowercase=True)):
        for prepared in (pipeline.prepare_source(text), pipeline.finish_target(text)):
            assert prepared == " ".join(prepared.split())


def test_it_is_stored_and_read():
    assert from_mapping(TextPipeline, to_mapping(MOSES), "text") == MOSES
    with pytest.raises(InputError, match=r"text: unknown key 'lowercsae'.*'lowercase'"):
        from_mapping(TextPipeline, {"lowercsae": True}, "text")
    with pytest.raises(InputError, match="text: 'moses' needs the languages"):
        from_mapping(TextPipeline, {"moses": True, "source": "en"}, "text")
