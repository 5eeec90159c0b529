"""BERT (Devlin et al. 2019) as Hugging Face stores it: the bare stack, or under a head for words, labels or spans."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from glassformer.checkpoints.maps.rules import Map, Rule, activation, fixed, initial_spread, only, plain_heads, setting
from glassformer.errors import InputError
from glassformer.models.config import Classification, Config, Head, Learned, MaskedLM, Sentence, Spans, Tagging

_FIXED: dict[str, Any] = {
    "n_decoder_layers": 0,
    "positions": Learned(),
    "norm_first": False,
    "tie_head": True,
    "norm": "layer",
    "gated": False,
    "bias": True,
    "scale_embedding": False,
    "scale_scores": True,
    "scale_head": False,
    "embedding_norm": True,
}

_CLASSES: dict[str, type] = {
    "BertModel": Sentence,
    "BertForMaskedLM": MaskedLM,
    "BertForPreTraining": MaskedLM,  # its other head, for the next sentence, is left aside
    "BertForSequenceClassification": Classification,
    "BertForTokenClassification": Tagging,
    "BertForQuestionAnswering": Spans,
}

_THRESHOLD = "no_answer_threshold"  # a key of ours, which transformers keeps and does not use
_BOS, _EOS = 1, 2  # BERT has neither; these are our config's defaults


def _read_config(settings: Mapping[str, Any]) -> Config:
    only(settings, position_embedding_type="absolute", is_decoder=False, add_cross_attention=False)
    only(settings, tie_word_embeddings=True)
    head = _read_head(settings)
    return Config(
        vocab_size=setting(settings, "vocab_size", int, 30522),
        d_model=setting(settings, "hidden_size", int, 768),
        n_heads=setting(settings, "num_attention_heads", int, 12),
        d_ff=setting(settings, "intermediate_size", int, 3072),
        n_encoder_layers=setting(settings, "num_hidden_layers", int, 12),
        max_length=setting(settings, "max_position_embeddings", int, 512),
        norm_eps=setting(settings, "layer_norm_eps", float, 1e-12),
        activation=activation(settings, "hidden_act", "gelu"),
        dropout=setting(settings, "hidden_dropout_prob", float, 0.1),
        attention_dropout=setting(settings, "attention_probs_dropout_prob", float, 0.1),
        pad_id=setting(settings, "pad_token_id", int, 0),
        bos_id=setting(settings, "bos_token_id", int, _BOS),
        eos_id=setting(settings, "eos_token_id", int, _EOS),
        n_segments=setting(settings, "type_vocab_size", int, 2),
        pooler=isinstance(head, Sentence | Classification),
        head_bias=isinstance(head, MaskedLM),
        head=head,
        init_std=initial_spread(settings),
        **_FIXED,
    )


def _read_head(settings: Mapping[str, Any]) -> Head:
    name = (setting(settings, "architectures", list, ["BertModel"]) or ["BertModel"])[0]
    kind = _CLASSES.get(name) if isinstance(name, str) else None
    if kind is None:
        raise InputError(f"'architectures' must name one of {', '.join(_CLASSES)}, got {name!r}.")
    if kind in (Classification, Tagging):
        only(settings, problem_type="single_label_classification")
        return kind(_labels(settings))
    if kind is Sentence:
        return Sentence("mean", normalize=False)
    return MaskedLM() if kind is MaskedLM else _spans(settings)


def _spans(settings: Mapping[str, Any]) -> Spans:
    known = settings.get(_THRESHOLD) is not None
    return Spans(setting(settings, _THRESHOLD, float) if known else None)


def _labels(settings: Mapping[str, Any]) -> tuple[str, ...]:
    names = settings.get("id2label")
    if names is None:
        return tuple(f"LABEL_{n}" for n in range(setting(settings, "num_labels", int, 2)))
    numbers = [str(n) for n in range(len(names))] if isinstance(names, dict) else []
    if not numbers or set(names) != set(numbers) or not all(isinstance(name, str) for name in names.values()):
        raise InputError(f"'id2label' must give each label's name by its number, 0, 1, ..., got {names!r}.")
    return tuple(names[number] for number in numbers)


def _write_config(config: Config) -> dict[str, Any]:
    fixed(config, **_FIXED)
    plain_heads(config)
    head = config.head or MaskedLM()
    pooled = isinstance(head, Classification) or (isinstance(head, Sentence) and config.pooler)
    fixed(config, activation_dropout=0.0, pooler=pooled, pooling="first")
    if not config.n_segments:
        raise InputError("'n_segments' must be at least 1, got 0.")
    if isinstance(head, MaskedLM):
        fixed(config, head_bias=True)
    return {
        "architectures": [next(name for name, kind in _CLASSES.items() if isinstance(head, kind))],
        "vocab_size": config.vocab_size,
        "hidden_size": config.d_model,
        "num_attention_heads": config.n_heads,
        "intermediate_size": config.d_ff,
        "num_hidden_layers": config.n_encoder_layers,
        "max_position_embeddings": config.max_length,
        "position_embedding_type": "absolute",
        "layer_norm_eps": config.norm_eps,
        "hidden_act": {"gelu_tanh": "gelu_pytorch_tanh"}.get(config.activation, config.activation),
        "hidden_dropout_prob": config.dropout,
        "attention_probs_dropout_prob": config.attention_dropout,
        "type_vocab_size": config.n_segments,
        "initializer_range": config.init_std,
        "pad_token_id": config.pad_id,
        "bos_token_id": None if config.bos_id == _BOS else config.bos_id,
        "eos_token_id": None if config.eos_id == _EOS else config.eos_id,
        **_label_names(head),
    }


def _label_names(head: Head) -> dict[str, Any]:
    if isinstance(head, Spans) and head.threshold is not None:
        return {_THRESHOLD: head.threshold}
    if not isinstance(head, Classification | Tagging):
        return {}
    return {
        "id2label": {str(number): label for number, label in enumerate(head.labels)},
        "label2id": {label: number for number, label in enumerate(head.labels)},
    }


def _rules(config: Config) -> list[Rule]:
    bert = "" if isinstance(config.head, Sentence) else "bert."
    rules = [
        Rule(f"{bert}embeddings.word_embeddings.weight", ("stack.embedding.token.weight",)),
        Rule(f"{bert}embeddings.position_embeddings.weight", ("stack.embedding.position",)),
        *_both(f"{bert}embeddings.LayerNorm", "stack.embedding.norm"),
    ]
    if config.n_segments:
        rules.append(Rule(f"{bert}embeddings.token_type_embeddings.weight", ("stack.embedding.segment.weight",)))
    for layer in range(config.n_encoder_layers):
        for theirs, ours in _LAYER.items():
            rules += _both(f"{bert}encoder.layer.{layer}.{theirs}", f"stack.blocks.{layer}.{ours}")
    if config.pooler:
        rules += _both(f"{bert}pooler.dense", "pooler.dense")
    if isinstance(config.head, MaskedLM | None):
        rules += [
            Rule("cls.predictions.bias", ("head.words.bias",)),
            *_both("cls.predictions.transform.dense", "head.dense"),
            *_both("cls.predictions.transform.LayerNorm", "head.norm"),
            Rule("cls.predictions.decoder.weight", ("stack.embedding.token.weight",), optional=True),
            Rule("cls.predictions.decoder.bias", ("head.words.bias",), optional=True),
        ]
    elif isinstance(config.head, Spans):
        rules += _both("qa_outputs", "head.labels")
    elif not isinstance(config.head, Sentence):
        rules += _both("classifier", "head.labels")
    return rules


_LAYER = {
    "attention.self.query": "self_attention.to_query",
    "attention.self.key": "self_attention.to_key",
    "attention.self.value": "self_attention.to_value",
    "attention.output.dense": "self_attention.to_output",
    "attention.output.LayerNorm": "norm_1",
    "intermediate.dense": "feed_forward.up",
    "output.dense": "feed_forward.down",
    "output.LayerNorm": "norm_2",
}


def _both(theirs: str, ours: str) -> list[Rule]:
    return [Rule(f"{theirs}.{part}", (f"{ours}.{part}",)) for part in ("weight", "bias")]


def _fit(config: Config, names: set[str]) -> Config:
    """The bare stack comes with a pooler or without; sentence vectors do not need it, but what came is kept."""
    if isinstance(config.head, Sentence) and not any(name.endswith("pooler.dense.weight") for name in names):
        return replace(config, pooler=False)
    return config


MAP = Map(
    "bert",
    "encoder",
    _read_config,
    _write_config,
    _rules,
    ignored=(r"(bert\.)?embeddings\.position_ids", r"cls\.seq_relationship\..*", r"(bert\.)?pooler\.dense\..*"),
    prefix="bert.",
    renamed=(("LayerNorm.gamma", "LayerNorm.weight"), ("LayerNorm.beta", "LayerNorm.bias")),
    fit=_fit,
)
