"""Hugging Face's side of `gpt_decoding.py`; runs in an environment of its own, on the folder that we exported."""

from __future__ import annotations

import time
from typing import Any

import torch
import transformers
from conversation import serve

MODELS: list[Any] = []


def build(folder: str, threads: int) -> dict[str, Any]:
    """Load the folder in fp32."""
    torch.set_num_threads(threads)
    MODELS.append(transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval())
    return {"transformers": transformers.__version__, "torch": torch.__version__}


def generate(ids: list[int], new: int) -> dict[str, Any]:
    """Exactly `new` tokens after `ids`, greedily; the seconds, and the tokens."""
    prompt = torch.tensor([ids])
    begin = time.perf_counter()
    with torch.inference_mode():
        written = MODELS[0].generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            min_new_tokens=new,
            max_new_tokens=new,
            do_sample=False,
            use_cache=True,
        )
    return {"seconds": time.perf_counter() - begin, "ids": written[0, len(ids) :].tolist()}


if __name__ == "__main__":
    serve({"build": build, "generate": generate})
