"""Hugging Face's names and settings for each architecture, and ours: one reversible map a file."""

from glassformer.checkpoints.maps import bart, bert, gpt2, llama, marian, t5
from glassformer.checkpoints.maps.rules import Map

MAPS: dict[str, Map] = {
    "bert": bert.MAP,
    "gpt2": gpt2.MAP,
    "llama": llama.MAP,
    "marian": marian.MAP,
    "bart": bart.MAP,
    "t5": t5.MAP,
}
"""The architectures that are known, by the `model_type` of config.json."""
