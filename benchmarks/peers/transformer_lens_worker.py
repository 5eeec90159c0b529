"""TransformerLens's side of `patching.py`: a GPT-2 small with random weights, and each residual stream patched."""

from __future__ import annotations

import time
from typing import Any

import numpy
import torch
import transformers
from conversation import serve
from tokenizers import Tokenizer, models

HELD: dict[str, Any] = {}


def build(folder: str, layers: int, threads: int) -> dict[str, Any]:
    """Make the model, write it for the other side, and wrap it. Its tokenizer has a word for each number."""
    import transformer_lens
    from transformer_lens.model_bridge import TransformerBridge

    torch.set_num_threads(threads)
    torch.set_grad_enabled(False)
    torch.manual_seed(0)
    words = Tokenizer(models.WordLevel({str(i): i for i in range(50257)}, unk_token="0"))
    names = {"bos_token": "1", "eos_token": "1", "pad_token": "1", "unk_token": "0"}
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=words, name_or_path="x", **names)
    tokenizer.save_pretrained(folder)
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(n_layer=layers, n_head=12, n_embd=768)).eval()
    model.save_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    HELD["model"] = TransformerBridge.boot_transformers("gpt2", hf_model=model, tokenizer=tokenizer)
    return {"transformer_lens": getattr(transformer_lens, "__version__", "?"), "torch": torch.__version__}


def patch(clean: list[int], corrupted: list[int], layers: int, out: str) -> dict[str, Any]:
    """For each layer and position the last logits, were the residual stream before that layer as in the corrupted run.
    The seconds; where `out` is given, all logits [layers, positions, V] in that file."""
    model, ids = HELD["model"], torch.tensor([clean])
    found = []
    begin = time.perf_counter()
    _, cache = model.run_with_cache(torch.tensor([corrupted]))
    for layer in range(layers):
        name = f"blocks.{layer}.hook_resid_pre"
        for position in range(len(clean)):

            def replace(value: torch.Tensor, hook: Any, place: int = position, name: str = name) -> torch.Tensor:
                value = value.clone()
                value[:, place] = cache[name][:, place]
                return value

            logits = model.run_with_hooks(ids, fwd_hooks=[(name, replace)])
            found.append(logits[0, -1].float())
    seconds = time.perf_counter() - begin
    if out:
        numpy.save(out, torch.stack(found).unflatten(0, (layers, -1)).numpy())
    return {"seconds": seconds}


if __name__ == "__main__":
    serve({"build": build, "patch": patch})
