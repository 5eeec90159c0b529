"""Small models of `transformers` with random weights, and how ours are compared with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from glassformer.checkpoints import huggingface
from glassformer.text.pipeline import TextPipeline
from glassformer.text.tokenizer import Tokenizer

transformers = pytest.importorskip("transformers", reason="the oracle is the package transformers")
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

TOLERANCE = 1e-5
"""The largest difference of two logits that is let pass; about what another order of summing in fp32 gives."""


def model_of(kind: type, config: Any, seed: int = 0) -> Any:
    """A model of `transformers` in evaluation mode. Weights and biases are drawn far apart, so that a wrong one shows;
    with fresh ones, all biases zero and all norms one, swapping two of them would not."""
    torch.manual_seed(seed)
    model = kind(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            # A tied embedding that is small beside what the layers add does not only repeat what it read.
            tied = config.tie_word_embeddings and (".wte" in name or "embed_tokens" in name)
            parameter.normal_(std=(0.25 if tied else 1.5) * config.hidden_size**-0.5)
            if "wpe" in name:
                parameter.mul_(5)
            if "norm" in name.lower() or ".ln_" in name:
                parameter.mul_(0.3).add_(float(name.endswith("weight")))
    return model


def rows(vocab_size: int, lengths: tuple[int, ...] = (9, 4, 1), pad_id: int = 0) -> tuple[Tensor, Tensor]:
    """Random ids without specials, padded on the right, and where they are real."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(4, vocab_size, (len(lengths), max(lengths)), generator=generator)
    real = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    return ids.masked_fill(~real, pad_id), real


def check_equal(ours: Tensor, theirs: Tensor, tolerance: float = TOLERANCE) -> None:
    """All numbers are that near to each other; none is NaN, and they are not all the same."""
    assert ours.shape == theirs.shape
    assert ours.std() > 1e-3
    difference = (ours.detach() - theirs.detach().float()).abs().max().item()
    assert difference <= tolerance, f"the largest difference is {difference:.2e}"


def greedy(network: Any, ids: Tensor, new: int) -> Tensor:
    """Our decoder's most likely continuation of every row, one id at a time from its cache: ids [B, T + new]."""
    state = network.start(len(ids), ids.shape[1] + new)
    logits = network.step(ids, None, state)
    for _ in range(new):
        best = logits.argmax(-1, keepdim=True)
        ids = torch.cat((ids, best), 1)
        logits = network.step(best, None, state)
    return ids


def check_greedy(ours: Any, theirs: Any, ids: Tensor, new: int = 24) -> None:
    """Both write the same ids, with a cache and without one."""
    written = greedy(ours, ids, new)
    for cache in (True, False):
        expected = theirs.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, use_cache=cache, **lengths(new)
        )
        assert written.tolist() == expected.tolist()
    assert len(set(written[:, ids.shape[1] :].flatten().tolist())) > 3, "a model that repeats one word shows little"
    assert ours(written).logits[:, -new - 1 : -1].argmax(-1).tolist() == written[:, -new:].tolist()


def lengths(new: int) -> dict[str, Any]:
    """`generate` writes so many ids, whichever they are."""
    return {"max_new_tokens": new, "min_new_tokens": new, "eos_token_id": None, "pad_token_id": 0}


def check_decoder(ours: Any, theirs: Any) -> None:
    """Logits at all real positions of padded rows, and greedy ids."""
    ids, real = rows(theirs.config.vocab_size)
    with torch.no_grad():
        check_equal(ours(ids).logits[real], theirs(ids, attention_mask=real.long()).logits[real])
    check_greedy(ours, theirs, ids[:, :1])


def check_gradients(ours: nn.Module, theirs: Any, pairs: dict[str, tuple[str, bool]], loss: Any) -> None:
    """In training mode without dropout, losses and their gradients are equal; `pairs`: our weight to theirs, and
    whether it is transposed. `loss` takes a model's logits."""
    totals = []
    for model in (ours, theirs):
        model.train().zero_grad()
        totals.append(loss(model))
        totals[-1].backward()
    assert abs((totals[0] - totals[1]).item()) <= TOLERANCE
    mine, other = dict(ours.named_parameters()), dict(theirs.named_parameters())
    for name, (their_name, transposed) in pairs.items():
        gradient = other[their_name].grad
        largest = gradient.abs().max()
        check_equal(mine[name].grad / largest, (gradient.t() if transposed else gradient) / largest)
    ours.eval()
    theirs.eval()


def tokenizer() -> Tokenizer:
    """A tokenizer of fewer than 40 tokens."""
    return Tokenizer.train(["the quick brown fox jumps over the lazy dog"] * 3, "character", 39, 1)


def exported(network: nn.Module, folder: Path, kind: type, **options: Any) -> Any:
    """The network written by us and loaded by `transformers`, which finds every tensor and nothing else."""
    huggingface.write_folder(folder, network, tokenizer(), TextPipeline(unicode="none"), **options)
    model, report = kind.from_pretrained(folder, output_loading_info=True)
    assert not any(report.values()), report
    again = huggingface.read_folder(folder)
    assert again.config == network.config
    if not options:
        for (name, first), (other, second) in zip(
            network.state_dict().items(), again.network.state_dict().items(), strict=True
        ):
            assert name == other and torch.equal(first, second), name
    return model.eval()
