"""From text to batches of ids: text pipelines, tokenizers, corpora, the corpus of dates, and token-budget batches.

The names below are imported when they are first used, so that a program that only reads files never loads torch.
"""

import importlib
from typing import Any

_HOMES = {
    "Cursor": "batches",
    "PairBatch": "pairs",
    "PairBatches": "pairs",
    "Pairs": "corpora",
    "TextPipeline": "pipeline",
    "Tokenizer": "tokenizer",
    "dates_corpus": "dates",
    "read_pairs": "corpora",
    "resolve": "corpora",
}

__all__ = sorted(_HOMES)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
