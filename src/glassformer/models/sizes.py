"""Published sizes, as data. A size is a `Config`; `dataclasses.replace` fits it to another vocabulary."""

from glassformer.models.config import Config

sizes: dict[str, Config] = {
    # Vaswani et al. 2017, table 3: WMT 2014 en-de, joint BPE vocabulary of about 37,000.
    "transformer-base": Config(vocab_size=37000),
    "transformer-big": Config(vocab_size=37000, d_model=1024, n_heads=16, d_ff=4096, dropout=0.3),
    # Wu et al. 2021, "Good for Misconceived Reasons": the size that fits Multi30k, joint BPE of about 10,000.
    "transformer-tiny": Config(
        vocab_size=10000, d_model=128, n_heads=4, d_ff=256, n_encoder_layers=4, n_decoder_layers=4, dropout=0.3
    ),
}
