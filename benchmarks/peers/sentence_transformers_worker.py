"""sentence-transformers' side of `embedding.py`; runs in an environment of its own, on the folder that we read too."""

from __future__ import annotations

import time
from typing import Any

import numpy
import sentence_transformers
import torch
from conversation import serve

MODELS: dict[str, Any] = {}


def build(folder: str, dtypes: list[str], threads: int) -> dict[str, Any]:
    """Load the folder once a number type."""
    torch.set_num_threads(threads)
    for dtype in dtypes:
        model = sentence_transformers.SentenceTransformer(folder, device="cpu")
        MODELS[dtype] = model.to(getattr(torch, dtype))
    return {"sentence_transformers": sentence_transformers.__version__, "torch": torch.__version__}


def encode(dtype: str, sentences: list[str], batch_size: int, out: str) -> dict[str, Any]:
    """Embed; the seconds. The vectors go to `out` (.npy, fp32)."""
    begin = time.perf_counter()
    vectors = MODELS[dtype].encode(sentences, batch_size=batch_size, convert_to_tensor=True, show_progress_bar=False)
    seconds = time.perf_counter() - begin
    numpy.save(out, vectors.float().numpy())
    return {"seconds": seconds}


if __name__ == "__main__":
    serve({"build": build, "encode": encode})
