"""Tokenizers of pretrained models: found in a folder, built from a GGUF file's metadata, written for others to read.

The layouts of a folder, in the order in which they are tried, are `LAYOUTS`. Files of settings beside them
(`tokenizer_config.json`, `special_tokens_map.json`, `added_tokens.json`, `config.json`) are read where they are there.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers

from glassformer.errors import InputError
from glassformer.text import sentencepiece as sp
from glassformer.text.roles import ROLES
from glassformer.text.sentencepiece import around, frame
from glassformer.text.tokenizer import Tokenizer

LAYOUTS: tuple[tuple[str, ...], ...] = (
    ("tokenizer.json",),
    ("vocab.json", "merges.txt"),
    ("encoder.json", "vocab.bpe"),
    ("vocab.txt",),
    ("source.spm", "vocab.json"),
    ("spiece.model",),
    ("sentencepiece.bpe.model",),
    ("tokenizer.model",),
)

_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
_QWEN2 = _LLAMA3.replace("{1,3}", "")

# The expressions that cut a text one after the other before byte-level BPE, by the names that GGUF files give them.
_CUTS: dict[str, tuple[str, ...]] = {
    "default": (r"[\p{P}\$\+<=>\^~\|]+", _GPT2, r"\p{N}+", "[0-9][0-9][0-9]"),
    "falcon": (r"[\p{P}\$\+<=>\^~\|`]+", _GPT2, "[0-9][0-9][0-9]"),
    **dict.fromkeys(("gpt-2", "gpt2", "phi-2", "mpt", "olmo", "roberta-bpe", "jais"), (_GPT2,)),
    **dict.fromkeys(("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone"), (r"\p{N}", _GPT2)),
    **dict.fromkeys(("llama-bpe", "llama3", "llama-v3"), (_LLAMA3,)),
    **dict.fromkeys(("qwen2", "stablelm2", "deepseek-r1-qwen"), (_QWEN2,)),
}
_NFC = ("qwen2", "deepseek-r1-qwen")  # their own tokenizers compose characters first
_WHOLE_WORDS = ("llama-bpe", "llama3", "llama-v3")  # a word of the vocabulary is taken whole, merges or not

_GGUF_ROLES = {
    "bos": "bos_token_id",
    "eos": "eos_token_id",
    "unk": "unknown_token_id",
    "pad": "padding_token_id",
    "cls": "cls_token_id",
    "sep": "seperator_token_id",  # spelled so in the files
    "mask": "mask_token_id",
}


# --- A folder -------------------------------------------------------------------------------------------------------


def read_tokenizer(folder: str | Path, *, vocab_size: int | None = None) -> Tokenizer:
    """The tokenizer of a pretrained model whose files lie in `folder`: `tokenizer.json`, byte-level BPE (GPT-2),
    WordPiece (BERT), Marian, or a SentencePiece model (T5, ALBERT, XLM-R, Llama).

    `vocab_size` is the number of rows of the model's embedding, where the caller knows it (else `config.json` may): a
    T5 vocabulary with room for them gets its 100 `<extra_id_N>`. Raises `InputError` where no file of `LAYOUTS` is
    there, and for files that are broken, contradict each other or need what is not known here.
    """
    folder = Path(folder)
    settings = _Settings.read(folder, vocab_size)
    for names in LAYOUTS:
        if not all((folder / name).is_file() for name in names):
            continue
        if names == ("tokenizer.json",):
            plain = Tokenizer.load(folder / names[0])
            return Tokenizer(plain._backend, specials=settings.roles(plain.id_of))
        try:
            backend = _build(folder, names, settings)
            _add(backend, settings)
            return Tokenizer(backend, specials=settings.roles(backend.token_to_id))
        except InputError as error:
            raise InputError(error.args[0] if str(folder) in str(error) else f"{folder}: {error}") from None
    looked = ", ".join(" with ".join(names) for names in LAYOUTS)
    raise InputError(f"{folder}: there is no tokenizer here; looked for {looked}. Name the folder that holds one.")


def _build(folder: Path, names: tuple[str, ...], settings: _Settings) -> tokenizers.Tokenizer:
    paths = [folder / name for name in names]
    if names[0] in ("vocab.json", "encoder.json"):
        return _byte_level_files(paths[0], paths[1], settings)
    if names[0] == "vocab.txt":
        return _wordpiece_file(paths[0], settings)
    if names[0] == "source.spm":
        if settings.flag("separate_vocabs", False):
            raise InputError("Marian models with two vocabularies are not known here; convert it to tokenizer.json.")
        return sp.marian_backend(paths[0], _vocab(paths[1]))
    return sp.file_backend(paths[0], settings.family, settings.flag, settings.roles(lambda token: token))


@dataclass(frozen=True)
class _Settings:
    """What the files beside a vocabulary say."""

    config: dict[str, Any]  # tokenizer_config.json, and special_tokens_map.json where that one is silent
    family: str  # "t5", "xlmroberta"...: the tokenizer's class or the model's type; "" when neither is told
    vocab_size: int
    added: dict[str, int]  # tokens and their ids

    @classmethod
    def read(cls, folder: Path, vocab_size: int | None) -> _Settings:
        model = _json(folder / "config.json")
        config = _json(folder / "special_tokens_map.json") | _json(folder / "tokenizer_config.json")
        named = str(config.get("tokenizer_class") or "").removesuffix("Fast").removesuffix("Tokenizer")
        family = (
            named if named and named not in ("PreTrained", "TokenizersBackend") else str(model.get("model_type") or "")
        )
        size = vocab_size or model.get("vocab_size")
        added = {token: i for token, i in _json(folder / "added_tokens.json").items() if isinstance(i, int)}
        listed = config.get("added_tokens_decoder")
        for key, token in (listed if isinstance(listed, dict) else {}).items():
            if _content(token) is not None and key.isdecimal():
                added[cast("str", _content(token))] = int(key)
        plain = family.lower().replace("-", "").replace("_", "")
        return cls(config, plain, size if isinstance(size, int) else 0, added)

    def roles(self, id_of: Any) -> dict[str, str]:
        """The token of each role that is told and that the vocabulary has."""
        told = {role: _content(self.config.get(f"{role}_token")) for role in ROLES}
        return {role: token for role, token in told.items() if token and id_of(token) is not None}

    def flag(self, name: str, default: bool) -> bool:
        value = self.config.get(name)
        return value if isinstance(value, bool) else default


def _content(token: Any) -> str | None:
    """A token's text: written as it is, or as an object with a `content`."""
    text = token.get("content") if isinstance(token, dict) else token
    return text if isinstance(text, str) else None


def _json(path: Path) -> dict[str, Any]:
    """An object from a JSON file; empty when there is no such file."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (ValueError, RecursionError, OSError) as error:
        raise InputError(f"{path}: not a whole JSON file ({error}); copy it again.") from None
    if not isinstance(value, dict):
        raise InputError(f"{path}: must hold an object, holds a {type(value).__name__}; copy it again.")
    return value


def _add(backend: tokenizers.Tokenizer, settings: _Settings) -> None:
    """The tokens that were added to the vocabulary, each with the id that it is said to have; then T5's extra ids."""
    for token, wanted in sorted(settings.added.items(), key=lambda item: item[1]):
        known = backend.token_to_id(token)
        if known is None:
            backend.add_special_tokens([AddedToken(token, normalized=False, special=True)])
            known = backend.token_to_id(token)
        if known != wanted:
            raise InputError(f"the added token {token!r} must have id {wanted}, it would get {known}; copy all files.")
    size = backend.get_vocab_size(with_added_tokens=True)
    extra = settings.config.get("extra_ids")
    listed = settings.config.get("additional_special_tokens")
    names = [_content(token) for token in listed] if isinstance(listed, list) else []
    if backend.token_to_id("<extra_id_0>") is None:
        count = sum(name is not None and name.startswith("<extra_id_") for name in names)
        count = count or (extra if isinstance(extra, int) and not isinstance(extra, bool) else 0)
        if not count and settings.family in ("", "t5", "mt5", "umt5") and settings.vocab_size >= size + 100:
            count = 100 if backend.token_to_id("</s>") == 1 and backend.token_to_id("<pad>") == 0 else 0
        if count > 10_000:
            raise InputError(f"'extra_ids' must be a small number, got {count}.")
        backend.add_special_tokens([f"<extra_id_{n}>" for n in reversed(range(count))])
    backend.add_special_tokens([name for name in names if name and backend.token_to_id(name) is not None])


# --- The kinds of vocabulary ----------------------------------------------------------------------------------------


def _byte_level_files(vocab_path: Path, merges_path: Path, settings: _Settings) -> tokenizers.Tokenizer:
    vocab = _vocab(vocab_path)
    try:
        lines = merges_path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{merges_path}: the merges cannot be read ({error}); copy the file again.") from None
    merges = []
    for number, line in enumerate(lines, 1):
        if not line or (number == 1 and line.startswith("#version")):
            continue
        pair = tuple(line.split(" "))
        if len(pair) != 2:
            raise InputError(f"{merges_path}, line {number}: a merge must be two tokens with a space between them.")
        merges.append(pair)
    if not all(letter in vocab for letter in "Ġaz"):
        raise InputError(f"{vocab_path}: not a byte-level vocabulary, which has 'Ġ'; convert it to tokenizer.json.")
    cut = "qwen2" if settings.family == "qwen2" else "gpt-2"
    backend = _byte_level(vocab, merges, cut, settings.flag("add_prefix_space", False))
    backend.add_special_tokens(_usual(vocab))
    if all(token in vocab for token in ("<s>", "</s>", "<mask>")):
        backend.add_special_tokens([AddedToken("<mask>", lstrip=True, normalized=False, special=True)])
        frame(backend, ["<s>", "$A", "</s>"], ["<s>", "$A", "</s>", "</s>", "$B", "</s>"])
    elif settings.flag("add_bos_token", False):
        around(backend, settings.roles(backend.token_to_id).get("bos", "<|endoftext|>"), None)
    return backend


def _byte_level(vocab: dict[str, int], merges: list[tuple[str, str]], cut: str, prefix: bool) -> tokenizers.Tokenizer:
    """Byte-level BPE (Radford et al. 2019): bytes written as letters, so that no text is unknown."""
    try:
        backend = tokenizers.Tokenizer(models.BPE(vocab, merges, ignore_merges=cut in _WHOLE_WORDS))
    except Exception as error:  # the library raises bare Exception
        raise InputError(f"the vocabulary and its merges must belong together ({error}); copy both again.") from None
    splits = [pre_tokenizers.Split(Regex(expression), "isolated") for expression in _CUTS[cut]]
    last = pre_tokenizers.ByteLevel(add_prefix_space=prefix, use_regex=_CUTS[cut] == (_GPT2,))
    backend.pre_tokenizer = last if _CUTS[cut] == (_GPT2,) else pre_tokenizers.Sequence([*splits, last])
    if cut in _NFC:
        backend.normalizer = normalizers.NFC()
    backend.decoder = decoders.ByteLevel()
    return backend


def _wordpiece_file(path: Path, settings: _Settings) -> tokenizers.Tokenizer:
    try:
        lines = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: the vocabulary cannot be read ({error}); copy the file again.") from None
    vocab = {line: i for i, line in enumerate(lines)}
    accents = settings.config.get("strip_accents")
    return _wordpiece(
        vocab,
        lower=settings.flag("do_lower_case", True),
        accents=accents if isinstance(accents, bool) else None,
        chinese=settings.flag("tokenize_chinese_chars", True),
    )


def _wordpiece(vocab: dict[str, int], lower: bool, accents: bool | None, chinese: bool) -> tokenizers.Tokenizer:
    """WordPiece (BERT, Devlin et al. 2019): the longest piece first, `##` before what continues a word."""
    unknown = next((token for token in ROLES["unk"] if token in vocab), None)
    if unknown is None:
        raise InputError("a WordPiece vocabulary must have [UNK]; copy the vocabulary again.")
    backend = tokenizers.Tokenizer(models.WordPiece(vocab, unk_token=unknown))
    backend.normalizer = normalizers.BertNormalizer(True, chinese, accents, lower)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    backend.add_special_tokens(_usual(vocab))
    for first, last in (("[CLS]", "[SEP]"), ("<s>", "</s>")):
        if first in vocab and last in vocab:
            between = [last, last, "$B"] if first == "<s>" else [last, "$B:1"]
            frame(backend, [first, "$A", last], [first, "$A", *between, f"{last}:{int(first != '<s>')}"])
            break
    return backend


def _vocab(path: Path) -> dict[str, int]:
    vocab = _json(path)
    ids = [i for i in vocab.values() if isinstance(i, int) and not isinstance(i, bool) and 0 <= i < 2**31]
    if not vocab or len(set(ids)) != len(vocab):
        raise InputError(f"{path}: must give each token an id of its own, a whole number; copy it again.")
    return vocab


def _usual(vocab: Iterable[str]) -> list[str]:
    """The special tokens that a vocabulary has, by their usual spellings."""
    names = {"<|endoftext|>": 0, **{token: 0 for spellings in ROLES.values() for token in spellings}}
    return [token for token in names if token in vocab]


# --- GGUF -----------------------------------------------------------------------------------------------------------


def tokenizer_from_gguf(metadata: Mapping[str, Any]) -> Tokenizer:
    """The tokenizer that the metadata of a GGUF file describes (its keys `tokenizer.ggml.*`, in plain values).

    Models: `gpt2` (byte-level BPE; `tokenizer.ggml.pre` names how text is cut before), `llama` (SentencePiece BPE),
    `t5` (SentencePiece unigram), `bert` (WordPiece). `frame` adds what the file says is added. Raises `InputError` for
    another model, an unknown name in `pre`, and lists that are missing or do not fit each other.
    """
    data = {
        key.removeprefix("tokenizer.ggml."): value for key, value in metadata.items() if key.startswith("tokenizer.")
    }
    known = {"gpt2": _gguf_bytes, "llama": _gguf_pieces, "t5": _gguf_pieces, "bert": _gguf_words}
    build = known.get(data.get("model", ""))
    if build is None:
        raise InputError(
            f"'tokenizer.ggml.model' must be gpt2, llama, t5 or bert, got {data.get('model')!r}; "
            "use the model's own tokenizer.json beside the file."
        )
    tokens = _gguf_list(data, "tokens", str)
    data["token_type"] = _gguf_list(data, "token_type", int) if "token_type" in data else [sp.NORMAL] * len(tokens)
    if len(data["token_type"]) != len(tokens) or len(set(tokens)) != len(tokens):
        raise InputError("the tokens of a GGUF file must differ and have one type each; get the file again.")
    ids = {role: data.get(key) for role, key in _GGUF_ROLES.items()}
    roles = {role: tokens[i] for role, i in ids.items() if isinstance(i, (int, np.integer)) and 0 <= i < len(tokens)}
    backend = build(data, tokens, roles)
    placed = backend.get_vocab_size() == len(tokens)  # each token's id is its place in the list
    return Tokenizer(backend, specials=roles, size=len(tokens) if placed else None)


def _gguf_list(data: Mapping[str, Any], key: str, type: type) -> list[Any]:
    values = data.get(key)
    values = values.tolist() if isinstance(values, np.ndarray) else values
    values = list(values) if isinstance(values, Iterable) and not isinstance(values, (str, Mapping)) else []
    if not values or not all(isinstance(value, type) for value in values):
        raise InputError(f"'tokenizer.ggml.{key}' must be a list of {type.__name__}; get the GGUF file again.")
    return values


def _gguf_ends(data: Mapping[str, Any], roles: Mapping[str, str], bos: bool, eos: bool) -> list[str | None]:
    """What is put before and after a text; `bos` and `eos` say whether, where the file is silent."""
    added = {"bos": data.get("add_bos_token", bos), "eos": data.get("add_eos_token", eos)}
    return [roles.get(role) if wanted else None for role, wanted in added.items()]


def _gguf_bytes(data: Mapping[str, Any], tokens: list[str], roles: Mapping[str, str]) -> tokenizers.Tokenizer:
    cut = data.get("pre", "default")
    if cut not in _CUTS:
        raise InputError(
            f"'tokenizer.ggml.pre' must be one of {', '.join(sorted(_CUTS))}, got {cut!r}; "
            "use the model's own tokenizer.json beside the file."
        )
    merges = [tuple(merge.split(" ")) for merge in _gguf_list(data, "merges", str)]
    if any(len(merge) != 2 for merge in merges):
        raise InputError("a merge of a GGUF file must be two tokens with a space between them; get the file again.")
    vocab = {token: i for i, token in enumerate(tokens)}
    backend = _byte_level(vocab, cast("Any", merges), cut, bool(data.get("add_space_prefix", False)))
    backend.add_tokens(
        [
            AddedToken(token, normalized=False, special=type != sp.USER_DEFINED)
            for token, type in zip(tokens, data["token_type"], strict=True)
            if type in (sp.UNKNOWN, sp.CONTROL, sp.USER_DEFINED)
        ]
    )
    return around(backend, *_gguf_ends(data, roles, cut in _WHOLE_WORDS, False))


def _gguf_pieces(data: Mapping[str, Any], tokens: list[str], roles: Mapping[str, str]) -> tokenizers.Tokenizer:
    model = sp.pieces_from_gguf(data, tokens, _gguf_list(data, "scores", float), roles.get("unk"))
    unigram = model.kind == "unigram"
    return around(sp.pieces_backend(model), *_gguf_ends(data, roles, not unigram, unigram))


def _gguf_words(data: Mapping[str, Any], tokens: list[str], roles: Mapping[str, str]) -> tokenizers.Tokenizer:
    """The file marks the beginning of a word (▁) where WordPiece marks its continuation (##)."""
    names = [
        token if type != sp.NORMAL else token[1:] if token.startswith("▁") else f"##{token}"
        for token, type in zip(tokens, data["token_type"], strict=True)
    ]
    roles_kept = set(roles.values()) | {token for spellings in ROLES.values() for token in spellings}
    names = [token if token in roles_kept else name for token, name in zip(tokens, names, strict=True)]
    lower = not any(name != name.lower() for name in names if name not in roles_kept and not name.startswith("[unused"))
    return _wordpiece({name: i for i, name in enumerate(names)}, lower=lower, accents=None, chinese=True)


# --- Writing --------------------------------------------------------------------------------------------------------


def tokenizer_files(
    tokenizer: Tokenizer,
    folder: str | Path,
    *,
    specials: Mapping[str, str] | None = None,
    chat_template: str | None = None,
    model_max_length: int | None = None,
) -> None:
    """Write `tokenizer.json` and `tokenizer_config.json` into `folder`, from which `transformers` (`AutoTokenizer`) and
    `read_tokenizer` give the same ids as `tokenizer`.

    Where pairs have two segments, `transformers` gives them too: a model that learnt with them needs them. `specials`
    adds to or replaces the tokens of `tokenizer.specials`, by role (`{"eos": "<|im_end|>"}`). `chat_template` is
    written for `apply_chat_template`. Raises `InputError` for a role or token that is not known.
    """
    copy = tokenizers.Tokenizer.from_str(tokenizer._backend.to_str())  # naming a token makes it special
    named = Tokenizer(copy, specials=tokenizer.specials | dict(specials or {}))
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        **{f"{role}_token": token for role, token in sorted(named.specials.items())},
    }
    if {"cls", "sep"} <= named.specials.keys() and 1 in copy.encode("a", "a").type_ids:
        config["model_input_names"] = ["input_ids", "token_type_ids", "attention_mask"]
    if chat_template is not None:
        config["chat_template"] = chat_template
    if model_max_length is not None:
        config["model_max_length"] = model_max_length
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    named.save(folder / "tokenizer.json")
    text = json.dumps(config, ensure_ascii=False, indent=2) + "\n"
    (folder / "tokenizer_config.json").write_text(text, encoding="utf-8")
