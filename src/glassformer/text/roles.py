"""Which tokens of a vocabulary play a role: padding, beginning, end, unknown, [CLS], [SEP], [MASK]."""

from __future__ import annotations

from collections.abc import Mapping

import tokenizers

from glassformer.errors import InputError, did_you_mean

# How the tokens with a role are usually spelled, the most telling first. `<s>` and `</s>` frame the text of models that
# fill masks (RoBERTa, XLM-R), and only there do they play [CLS] and [SEP].
ROLES: Mapping[str, tuple[str, ...]] = {
    "pad": ("<pad>", "[PAD]", "<|pad|>"),
    "bos": ("<s>", "<bos>", "[BOS]", "<|begin_of_text|>", "<|startoftext|>"),
    "eos": ("</s>", "<eos>", "[EOS]", "<|end_of_text|>", "<|endoftext|>"),
    "unk": ("<unk>", "[UNK]", "<|unk|>"),
    "cls": ("[CLS]", "<cls>"),
    "sep": ("[SEP]", "<sep>"),
    "mask": ("[MASK]", "<mask>", "<|mask|>"),
}


def roles_of(backend: tokenizers.Tokenizer, given: Mapping[str, str]) -> dict[str, str]:
    """The token of each role: as given, else what the model names, else the usual spelling."""
    for role, token in given.items():
        if role not in ROLES:
            raise InputError(f"'{role}' is no role of a special token.{did_you_mean(role, ROLES)}")
        if backend.token_to_id(token) is None:
            raise InputError(f"the {role} token must be in the vocabulary, which has no {token!r}.")
    known = {i for i, token in backend.get_added_tokens_decoder().items() if token.special}
    backend.add_special_tokens([token for token in given.values() if backend.token_to_id(token) not in known])
    spellings = dict(ROLES)
    unknown = getattr(backend.model, "unk_token", None)
    if unknown is not None:
        spellings["unk"] = (unknown, *spellings["unk"])
    if any(backend.token_to_id(token) is not None for token in ("<mask>", given.get("mask", "<mask>"))):
        spellings |= {"cls": (*spellings["cls"], "<s>"), "sep": (*spellings["sep"], "</s>")}
    has = {role: [name for name in names if backend.token_to_id(name) is not None] for role, names in spellings.items()}
    return {role: names[0] for role, names in has.items() if names} | dict(given)
