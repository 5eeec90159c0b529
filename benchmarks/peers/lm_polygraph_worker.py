"""lm-polygraph's side of `uncertainty_peer.py`; runs in an environment of its own, on the folder that we exported.

The statistics are those that its calculators hand to its estimators: log-softmax of the logits at each token of the
answer, and the entropy by its `EntropyCalculator`. The answers are given, so that both sides score the same ones; what
its `GreedyProbsCalculator` would write by itself differs, since it forbids an end before the third token.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import numpy
import torch
import transformers
from conversation import serve
from lm_polygraph.estimators import MaximumSequenceProbability, MeanTokenEntropy, Perplexity
from lm_polygraph.stat_calculators.entropy import EntropyCalculator

MODELS: list[Any] = []


def build(folder: str, threads: int) -> dict[str, Any]:
    """Load the folder in fp32."""
    torch.set_num_threads(threads)
    MODELS.append(transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval())
    names = ("lm-polygraph", "transformers", "torch")
    return {name: version(name) for name in names}


def score(prompts: list[list[int]], answers: list[list[int]]) -> dict[str, Any]:
    """The scores of each answer after its prompt, by the estimators' own names."""
    logprobs = [_logprobs(prompt, answer) for prompt, answer in zip(prompts, answers, strict=True)]
    likelihoods = [
        [float(row[token]) for row, token in zip(rows, answer, strict=True)]
        for rows, answer in zip(logprobs, answers, strict=True)
    ]
    stats = {"greedy_log_likelihoods": likelihoods, **EntropyCalculator()({"greedy_log_probs": logprobs})}
    found = {}
    for estimator in (MaximumSequenceProbability(), Perplexity(), MeanTokenEntropy()):
        found[str(estimator)] = [float(value) for value in estimator(stats)]
    return found


def _logprobs(prompt: list[int], answer: list[int]) -> list[numpy.ndarray]:
    """log p of the whole vocabulary at each token of the answer."""
    with torch.inference_mode():
        logits = MODELS[0](torch.tensor([prompt + answer[:-1]])).logits[0, len(prompt) - 1 :]
    return list(logits.float().log_softmax(-1).numpy())


if __name__ == "__main__":
    serve({"build": build, "score": score})
