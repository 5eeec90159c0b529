"""Published sizes, as data. A size is a config; `dataclasses.replace` fits it to another vocabulary."""

from dataclasses import replace

from glassformer.models.config import (
    AnyConfig,
    Banded,
    Config,
    ConvolutionalConfig,
    Learned,
    MaskedLM,
    RecurrentConfig,
    Relative,
    Rotary,
    Sentence,
)

# Radford et al. 2018: post-norm, as in the original Transformer, with learned positions.
_GPT1 = Config(
    vocab_size=40478,
    d_model=768,
    n_heads=12,
    d_ff=3072,
    n_encoder_layers=0,
    n_decoder_layers=12,
    positions=Learned(),
    max_length=512,
    activation="gelu_tanh",
    attention_dropout=0.1,
    scale_embedding=False,
    init_std=0.02,
)

# Radford et al. 2019, table 2: pre-norm and a final norm. One token both ends and begins a text.
_GPT2 = replace(_GPT1, vocab_size=50257, max_length=1024, norm_first=True, pad_id=50256, bos_id=50256, eos_id=50256)


def _gpt(base: Config, n_layers: int, d_model: int, n_heads: int, d_head: int | None = None) -> Config:
    """The feed-forward is four times as wide as the stream, in all of them."""
    if d_head is not None and d_head * n_heads == d_model:
        d_head = None
    return replace(base, d_model=d_model, n_heads=n_heads, d_head=d_head, d_ff=4 * d_model, n_decoder_layers=n_layers)


# Brown et al. 2020: GPT-2 with 2,048 positions and, by turns, dense and locally banded layers; how wide a band is they
# do not say (see `Banded`). The paper names no dropout. `attention = "dense"` gives what stock GPT-2 can express.
_GPT3 = replace(_GPT2, max_length=2048, dropout=0.0, attention_dropout=0.0, attention=Banded())


# Devlin et al. 2019: segments, a norm on the embeddings, a pooler; the uncased vocabulary.
_BERT = Config(
    vocab_size=30522,
    d_model=768,
    n_heads=12,
    d_ff=3072,
    n_encoder_layers=12,
    n_decoder_layers=0,
    positions=Learned(),
    max_length=512,
    norm_eps=1e-12,
    activation="gelu",
    attention_dropout=0.1,
    scale_embedding=False,
    embedding_norm=True,
    n_segments=2,
    pooler=True,
    head_bias=True,
    head=MaskedLM(),
    init_std=0.02,
)

# Raffel et al. 2020, version 1.0: relative positions, RMS norms, no biases; scores are not scaled, states before the
# tied head are. Padding opens the target.
_T5 = Config(
    vocab_size=32128,
    positions=Relative(),
    max_length=512,
    norm_first=True,
    norm_eps=1e-6,
    norm="rms",
    bias=False,
    scale_embedding=False,
    scale_scores=False,
    scale_head=True,
    pad_id=0,
    bos_id=0,
    eos_id=1,
    init_std=0.02,
)

# Lewis et al. 2020: learned positions and a norm on the embeddings of both stacks.
_BART = Config(
    vocab_size=50265,
    d_model=768,
    n_heads=12,
    d_ff=3072,
    positions=Learned(),
    max_length=1024,
    activation="gelu",
    scale_embedding=False,
    embedding_norm=True,
    pad_id=1,
    bos_id=2,  # what targets begin with
    eos_id=2,
    init_std=0.02,
)

# Touvron et al. 2023: rotary positions, RMS norms, gated feed-forwards, no biases.
_LLAMA = Config(
    vocab_size=32000,
    d_model=4096,
    n_heads=32,
    d_ff=11008,
    n_encoder_layers=0,
    n_decoder_layers=32,
    positions=Rotary(),
    max_length=4096,
    norm_first=True,
    activation="silu",
    dropout=0.0,
    tie_head=False,
    pad_id=2,
    norm="rms",
    gated=True,
    bias=False,
    scale_embedding=False,
    init_std=0.02,
)

sizes: dict[str, AnyConfig] = {
    # Vaswani et al. 2017, table 3: WMT 2014 en-de, joint BPE vocabulary of about 37,000.
    "transformer-base": Config(vocab_size=37000),
    "transformer-big": Config(vocab_size=37000, d_model=1024, n_heads=16, d_ff=4096, dropout=0.3),
    # Wu et al. 2021, "Good for Misconceived Reasons": the size that fits Multi30k, joint BPE of about 10,000.
    "transformer-tiny": Config(
        vocab_size=10000, d_model=128, n_heads=4, d_ff=256, n_encoder_layers=4, n_decoder_layers=4, dropout=0.3
    ),
    # What the Transformer replaced, in sizes that fit Multi30k like transformer-tiny (which has 2.6 million parameters
    # with 10,000 words); Gehring et al. 2017 have 15+15 layers of 512 and more, Luong et al. 2015 4 of 1,000.
    "lstm-tiny": RecurrentConfig(vocab_size=10000, d_model=256, dropout=0.3),
    "convs2s-tiny": ConvolutionalConfig(
        vocab_size=10000, d_model=192, n_encoder_layers=4, n_decoder_layers=3, dropout=0.3
    ),
    "gpt1": _GPT1,
    "gpt2": _GPT2,
    "gpt2-medium": _gpt(_GPT2, 24, 1024, 16),
    "gpt2-large": _gpt(_GPT2, 36, 1280, 20),
    "gpt2-xl": _gpt(_GPT2, 48, 1600, 25),
    # As printed in table 2.1, whose rows XL and 13B do not divide: 24 heads of 128 are 3,072, 40 of them 5,120.
    "gpt3-small": _gpt(_GPT3, 12, 768, 12, 64),
    "gpt3-medium": _gpt(_GPT3, 24, 1024, 16, 64),
    "gpt3-large": _gpt(_GPT3, 24, 1536, 16, 96),
    "gpt3-xl": _gpt(_GPT3, 24, 2048, 24, 128),
    "gpt3-2.7b": _gpt(_GPT3, 32, 2560, 32, 80),
    "gpt3-6.7b": _gpt(_GPT3, 32, 4096, 32, 128),
    "gpt3-13b": _gpt(_GPT3, 40, 5140, 40, 128),
    "gpt3-175b": _gpt(_GPT3, 96, 12288, 96, 128),
    # The two rows as they are usually read.
    "gpt3-xl-corrected": _gpt(_GPT3, 24, 2048, 16, 128),
    "gpt3-13b-corrected": _gpt(_GPT3, 40, 5120, 40, 128),
    "bert-base": _BERT,
    "bert-large": replace(_BERT, d_model=1024, n_heads=16, d_ff=4096, n_encoder_layers=24),
    # Wang et al. 2020, six layers of them, tuned by Sentence Transformers (all-MiniLM-L6-v2) on texts of 256 tokens.
    "minilm-l6": replace(
        _BERT, d_model=384, d_ff=1536, n_encoder_layers=6, head_bias=False, head=Sentence(max_length=256)
    ),
    "t5-small": _T5,
    "t5-base": replace(_T5, d_model=768, n_heads=12, d_ff=3072, n_encoder_layers=12, n_decoder_layers=12),
    "bart-base": _BART,
    "bart-large": replace(_BART, d_model=1024, n_heads=16, d_ff=4096, n_encoder_layers=12, n_decoder_layers=12),
    "llama-2-7b": _LLAMA,
    # Allal et al. 2025: grouped keys and values (three heads for nine).
    "smollm2-135m": replace(
        _LLAMA,
        vocab_size=49152,
        d_model=576,
        n_heads=9,
        n_kv_heads=3,
        d_ff=1536,
        n_decoder_layers=30,
        positions=Rotary(100000.0),
        max_length=8192,
        tie_head=True,
    ),
}
