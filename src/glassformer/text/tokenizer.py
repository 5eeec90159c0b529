"""Tokenizers: text to ids and back, around the library `tokenizers`; our own and those of pretrained models.

Our own (words, characters or byte-pair encoding, Sennrich 2016) have the same first four ids: padding, beginning, end,
unknown. Those of pretrained models keep the ids that they have; `text/pretrained.py` finds and builds them.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal, cast

import tokenizers
from tokenizers import Regex, decoders, models, pre_tokenizers, trainers

from glassformer.errors import InputError, did_you_mean
from glassformer.text.encodings import SPACE, Frame, frame_of, ranges_of
from glassformer.text.roles import roles_of

PAD, BOS, EOS, UNK = 0, 1, 2, 3
SPECIALS = ("<pad>", "<s>", "</s>", "<unk>")
KINDS = ("bpe", "word", "character")
Kind = Literal["bpe", "word", "character"]

# Punctuation stands alone, with the space before it if there is one, so that "Yes, sir." and its Moses-tokenised form
# "Yes , sir ." cost equally many tokens. Moses' escapes (&apos;) are one symbol, a run of the same mark is one ("..."),
# and marks inside a word (t-shirt, don't, u.s) stay with it: there the merges decide.
_PUNCTUATION = r"▁?&(?:amp|apos|quot|lt|gt|#\d+);|▁?(?!(?<=[\p{L}\p{N}])[-'’.](?=[\p{L}\p{N}]))(\p{P})\1*"


class Tokenizer:
    """Text to ids and back. Made by `Tokenizer.train`, `Tokenizer.load` or `pretrained.read_tokenizer`.

    Text that happens to spell a special token (`"</s>"`) is never read as one unless `read_specials` asks for it, and
    nothing is put around the text unless `frame` does (our own tokenizers have no frame: batches add their ends).

    `specials` names the tokens that play a role, where the usual spelling is not it: `{"eos": "<|im_end|>"}`; the roles
    are the keys of `ROLES`. `size` is `vocab_size`, where it is known: to find it, all tokens have to be asked for.
    Raises `InputError` for an unknown role, a token that the vocabulary lacks, and a backend that has most of our own
    first four ids but not all.
    """

    def __init__(
        self, backend: tokenizers.Tokenizer, *, specials: Mapping[str, str] | None = None, size: int | None = None
    ):
        self._own = _is_own(backend)
        backend.no_padding()
        backend.no_truncation()
        self._backend = backend
        self._size = size
        self._lock = threading.Lock()  # the backend has one switch for "read specials", shared by all threads
        self.specials: dict[str, str] = roles_of(backend, specials or {})
        added = backend.get_added_tokens_decoder()
        self.special_ids: frozenset[int] = frozenset(i for i, token in added.items() if token.special)
        self._hidden = frozenset((PAD, BOS, EOS)) if self._own else self.special_ids
        self._never = self.special_ids - {self.unk_id}  # what text must not give unless it is asked for

    @classmethod
    def train(
        cls, texts: Iterable[str], kind: Kind = "bpe", vocab_size: int = 8000, min_frequency: int = 2
    ) -> Tokenizer:
        """Learn a vocabulary of at most `vocab_size` tokens from `texts`: the same texts give the same tokenizer.

        `bpe`: the space before a word is part of it, written ▁; text with single spaces comes back as it was.
        `word`: what stands between white space. `character`: every character, spaces too.
        Merges, words and characters that occur less than `min_frequency` times are left out (BPE keeps all characters
        that fit into the vocabulary, the most frequent first); what has no token becomes `<unk>`.
        """
        if kind not in KINDS:
            raise InputError(f"'tokenizer' must be one of {', '.join(KINDS)}, got '{kind}'.{did_you_mean(kind, KINDS)}")
        if vocab_size <= len(SPECIALS):
            raise InputError(f"'vocab_size' must be more than the {len(SPECIALS)} special tokens, got {vocab_size}.")
        backend, trainer = _parts(kind, vocab_size, min_frequency)
        if kind == "bpe":
            texts = list(texts)
            trainer.initial_alphabet = _most_frequent(texts, trainer.limit_alphabet)
        backend.train_from_iterator(texts, trainer)
        if backend.get_vocab_size() == len(SPECIALS):
            raise InputError("a tokenizer cannot be trained on texts without any token; check the training files.")
        return cls(backend)

    def encode(self, text: str, *, frame: bool = False, read_specials: bool = False) -> list[int]:
        """The ids of `text`.

        `frame` adds what the model's tokenizer puts around a text ([CLS] and [SEP], `<s>`, `</s>`, or nothing);
        `read_specials` reads special tokens that the text spells ("[MASK]", the marks of a chat template). Without
        both, no special id occurs in the result, the unknown token excepted.
        """
        with self._reading(read_specials):
            encoding = self._backend.encode(text, add_special_tokens=frame)
        return encoding.ids if read_specials else self._plain(encoding)[0]

    def encode_all(self, texts: Sequence[str], frame: bool = False, *, read_specials: bool = False) -> list[list[int]]:
        """`encode` for many texts at once, in parallel."""
        with self._reading(read_specials):
            encodings = self._backend.encode_batch_fast(list(texts), add_special_tokens=frame)
        return [encoding.ids if read_specials else self._plain(encoding)[0] for encoding in encodings]

    def encode_pair(self, text: str, second: str, *, read_specials: bool = False) -> tuple[list[int], list[int]]:
        """Two texts in one framed sequence: its ids, and for each the segment (token type) that it belongs to."""
        with self._reading(read_specials):
            encoding = self._backend.encode(text, second, add_special_tokens=True)
        if read_specials:
            return encoding.ids, encoding.type_ids
        ids, places = self._plain(encoding)
        segments = encoding.type_ids
        return ids, [segments[place] for place in places]

    def encode_spans(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """The ids of `text`, those of `encode(text)`, and for each the range [start, end) of characters it stands for.

        Ranges never go backwards. White space at the ends of a token is not part of its range, unless it is all that
        the token has. Tokens that share a character (its bytes) all have it; a run of SentencePiece's byte tokens, and
        the tokens that spell a special token, have the range of the whole. The mark of a word's beginning, where it
        stands for nothing in the text, has an empty range. An accent that the tokenizer strips is in the range of the
        letter that carries it.
        """
        return self.encode_spans_all([text])[0]

    def encode_spans_all(self, texts: Sequence[str]) -> list[tuple[list[int], list[tuple[int, int]]]]:
        """`encode_spans` for many texts at once, in parallel."""
        with self._reading(specials=False):
            encodings = self._backend.encode_batch(list(texts), add_special_tokens=False)
        results = []
        for text, encoding in zip(texts, encodings, strict=True):
            ids, places = self._plain(encoding)
            ranges = ranges_of(text, encoding)
            results.append((ids, [ranges[place] for place in places]))
        return results

    def frame(self, ids: Sequence[int]) -> list[int]:
        """Already encoded text in the model's frame: `frame(encode(text))` is `encode(text, frame=True)`.

        A tokenizer that puts nothing around a text but has the tokens gives [CLS] ids [SEP]. Raises `InputError` where
        there is neither.
        """
        (before, after), _ = self._frame_of_one
        return [*(i for i, _ in before), *ids, *(i for i, _ in after)]

    def frame_pair(self, first: Sequence[int], second: Sequence[int]) -> tuple[list[int], list[int]]:
        """Two already encoded texts in the model's frame, and for each id its segment: what `encode_pair` gives for
        the texts; in BERT (Devlin 2018) [CLS] first [SEP] second [SEP], of the segments 0 0 0 1 1.

        Raises `InputError` where the vocabulary has no [CLS] and [SEP] (`cls` and `sep` in `specials`).
        """
        around, segments = self._frame_of_two
        parts = [around[0]]
        for ids, segment, after in zip((first, second), segments, around[1:], strict=True):
            parts += [[(i, segment) for i in ids], after]
        flat = [pair for part in parts for pair in part]
        return [i for i, _ in flat], [segment for _, segment in flat]

    @cached_property
    def _frame_of_one(self) -> Frame:
        with self._reading(specials=False):
            own = frame_of(self._backend.encode("a", add_special_tokens=True), 1)
        return own or self._bert_frame([0])

    @cached_property
    def _frame_of_two(self) -> Frame:
        usual = self._bert_frame([0, 1])
        with self._reading(specials=False):
            own = frame_of(self._backend.encode("a", "a", add_special_tokens=True), 2)
        return own or usual

    def _bert_frame(self, segments: list[int]) -> Frame:
        """[CLS] first [SEP] second [SEP], for as many texts as there are segments."""
        if self.cls_id is None or self.sep_id is None:
            raise InputError(
                "this tokenizer has no tokens [CLS] and [SEP] (or <s> and </s>, in models that fill masks) to frame "
                "texts with; tokens of other names are given as 'cls' and 'sep' in 'specials'."
            )
        return [[(self.cls_id, 0)], *([(self.sep_id, segment)] for segment in segments)], segments

    @contextmanager
    def _reading(self, specials: bool) -> Iterator[None]:
        """The backend set to read special tokens in texts or not, for this thread alone."""
        with self._lock:
            self._backend.encode_special_tokens = not specials
            try:
                yield
            except TypeError as error:
                raise InputError(f"a text must be a valid Unicode string, without lone surrogates ({error}).") from None

    def _plain(self, encoding: Any) -> tuple[list[int], Sequence[int]]:
        """Ids in which a special token that the *text* spelled is spelled by other tokens: the model's vocabulary holds
        it too, so the model may find it there; in our own tokenizers it becomes `<unk>`. And for each id the place in
        `encoding` of the token that it comes from."""
        ids = encoding.ids
        if self._never.isdisjoint(ids):
            return ids, range(len(ids))
        framed = encoding.special_tokens_mask
        found = [i in self._never and not part for i, part in zip(ids, framed, strict=True)]
        if not any(found):
            return ids, range(len(ids))
        pieces = [self._spelled(i) if again else [i] for i, again in zip(ids, found, strict=True)]
        places = [place for place, piece in enumerate(pieces) for _ in piece]
        return [i for piece in pieces for i in piece], places

    def _spelled(self, special: int) -> list[int]:
        """Ordinary ids for the text of a special token: of its first character, and of the rest."""
        instead = [] if self.unk_id is None else [self.unk_id]
        if self._own:
            return instead
        token, cut = str(self._backend.id_to_token(special)), self._backend.model.tokenize
        try:
            parts = [piece.id for part in (token[:1], token[1:]) if part for piece in cut(part)]
        except Exception:  # a vocabulary of words that has neither the part nor an unknown token
            return instead
        return [i for part in parts for i in (instead if part in self._never else [part])]

    def decode(self, ids: Iterable[int], *, skip_specials: bool = True) -> str:
        """The text of `ids`, with white space as the tokenizer keeps it: byte-level ones (GPT-2) keep all of it.

        Special tokens are left out by default; our own tokenizers show an unknown token as `<unk>` even then. Ids
        without a token give nothing.
        """
        hidden = self._hidden if skip_specials else frozenset()
        shown = [i for i in map(int, ids) if i >= 0 and i not in hidden]
        return str(self._backend.decode(shown, skip_special_tokens=False))

    def tokens(self, ids: Iterable[int]) -> list[str]:
        """Each id's token as the vocabulary writes it, specials too: for pictures and alignments."""
        names = [self._backend.id_to_token(int(i)) for i in ids]
        if None in names:
            raise InputError(f"ids must lie in [0, {self.vocab_size}), the size of this vocabulary.")
        return cast("list[str]", names)

    def id_of(self, token: str) -> int | None:
        """The id of a token as the vocabulary writes it, special or not; None where there is no such token."""
        return self._backend.token_to_id(token)

    def _id_of_role(self, role: str) -> int | None:
        return self.id_of(self.specials[role]) if role in self.specials else None

    @property
    def pad_id(self) -> int | None:
        """The padding token's id; None where there is none, and so for the other six."""
        return self._id_of_role("pad")

    @property
    def bos_id(self) -> int | None:
        """The id of the token that begins a text."""
        return self._id_of_role("bos")

    @property
    def eos_id(self) -> int | None:
        """The id of the token that ends a text."""
        return self._id_of_role("eos")

    @property
    def unk_id(self) -> int | None:
        """The id that stands for what has no token."""
        return self._id_of_role("unk")

    @property
    def cls_id(self) -> int | None:
        """The id of the first token of a framed text, in models that fill masks."""
        return self._id_of_role("cls")

    @property
    def sep_id(self) -> int | None:
        """The id of the token between and after framed texts, in models that fill masks."""
        return self._id_of_role("sep")

    @property
    def mask_id(self) -> int | None:
        """The id of the token that hides another."""
        return self._id_of_role("mask")

    @cached_property
    def vocab_size(self) -> int:
        """The number of ids, specials and added tokens included: ids lie in [0, vocab_size)."""
        if self._size is not None:
            return self._size
        return max(self._backend.get_vocab(with_added_tokens=True).values(), default=-1) + 1

    @property
    def kind(self) -> str:
        """`bpe`, `word` or `character` (one of `KINDS`) for our own, else the model: `bpe`, `unigram`..."""
        if not self._own:
            return type(self._backend.model).__name__.lower()
        if isinstance(self._backend.model, models.BPE):
            return "bpe"
        return "word" if isinstance(self._backend.pre_tokenizer, pre_tokenizers.WhitespaceSplit) else "character"

    def save(self, path: str | Path) -> None:
        """Write `tokenizer.json`, Hugging Face's format. It has no place for `unusual_roles`: keep them beside it.
        (`pretrained.tokenizer_files` writes them as other programs read them.)
        """
        Path(path).write_text(self._backend.to_str(pretty=True), encoding="utf-8")

    @property
    def unusual_roles(self) -> dict[str, str]:
        """The `specials` that `Tokenizer.load` has to be given, as usual spellings do not tell them."""
        usual = roles_of(self._backend, {})
        return {role: token for role, token in self.specials.items() if usual.get(role) != token}

    @classmethod
    def load(cls, path: str | Path, *, specials: Mapping[str, str] | None = None) -> Tokenizer:
        """Read a `tokenizer.json`: what `save` wrote, or that of a pretrained model.

        Raises `InputError` if the file is missing or broken, or is one of ours with other special tokens.
        """
        try:
            text = Path(path).read_text(encoding="utf-8")
        except FileNotFoundError:
            raise InputError(f"{path}: there is no such tokenizer file.") from None
        except UnicodeDecodeError as error:
            raise InputError(f"{path}: not a tokenizer file: it is not UTF-8 text ({error.reason}).") from None
        try:
            backend = tokenizers.Tokenizer.from_str(text)
        except Exception as error:  # the library raises bare Exception for any broken file
            raise InputError(f"{path}: not a whole tokenizer file ({error}); copy or train it again.") from None
        try:
            return cls(backend, specials=specials)
        except InputError as error:
            raise InputError(f"{path}: {error}") from None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tokenizer) and self._backend.to_str() == other._backend.to_str()

    def __hash__(self) -> int:
        return hash(self._backend.to_str())

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(Tokenizer, specials=self.unusual_roles), (self._backend,)

    def __repr__(self) -> str:
        return f"Tokenizer({self.kind}, {self.vocab_size} tokens)"


def _is_own(backend: tokenizers.Tokenizer) -> bool:
    """Whether a tokenizer is ours: its first four ids are. Raises `InputError` when three are: it was changed."""
    if backend.post_processor is not None or not isinstance(backend.model, (models.BPE, models.WordLevel)):
        return False
    wrong = [wanted for wanted, name in enumerate(SPECIALS) if backend.token_to_id(name) != wanted]
    if len(wrong) == 1:
        name, came = SPECIALS[wrong[0]], backend.token_to_id(SPECIALS[wrong[0]])
        raise InputError(f"the tokenizer must have {name} as id {wrong[0]}, it has {came}; train one with glassformer.")
    return not wrong


def _most_frequent(texts: Sequence[str], most: int) -> list[str]:
    """The characters that training has to keep where not all fit, as the trainer would take any of equal ones; else
    none."""
    counts = Counter(SPACE)
    for text in texts:
        counts.update(text.replace(" ", SPACE))
    return sorted(sorted(counts), key=counts.__getitem__, reverse=True)[:most] if len(counts) > most else []


def _parts(kind: Kind, vocab_size: int, min_frequency: int) -> tuple[tokenizers.Tokenizer, Any]:
    """An untrained tokenizer of this kind and the trainer for it."""
    common: dict[str, Any] = {
        "vocab_size": vocab_size,
        "min_frequency": min_frequency,
        "special_tokens": list(SPECIALS),
        "show_progress": False,
    }
    if kind == "bpe":
        backend = tokenizers.Tokenizer(models.BPE(unk_token=SPECIALS[UNK]))
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme="always"),
                pre_tokenizers.Split(Regex(_PUNCTUATION), behavior="isolated"),
            ]
        )
        backend.decoder = decoders.Metaspace(replacement=SPACE, prepend_scheme="always")
        return backend, trainers.BpeTrainer(limit_alphabet=vocab_size - len(SPECIALS), **common)
    backend = tokenizers.Tokenizer(models.WordLevel(unk_token=SPECIALS[UNK]))
    if kind == "word":
        backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    else:
        backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
        backend.decoder = decoders.Fuse()
    return backend, trainers.WordLevelTrainer(**common)
