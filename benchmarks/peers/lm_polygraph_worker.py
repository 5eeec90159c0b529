"""lm-polygraph's side of `uncertainty_peer.py`; runs in an environment of its own, on the folder that we exported.

The statistics are those that its calculators hand to its estimators: log-softmax of the logits at each token of the
answer, the entropy by its `EntropyCalculator`, and attention laid out as its `GreedyProbsCalculator` does. The answers
are given, so that both sides score the same ones; what that calculator would write by itself differs, since it forbids
an end before the third token.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import numpy
import torch
import transformers
from conversation import serve
from lm_polygraph.estimators import RAUQ, MaximumSequenceProbability, MeanTokenEntropy, Perplexity
from lm_polygraph.stat_calculators.entropy import EntropyCalculator
from lm_polygraph.ue_metrics import PredictionRejectionArea
from lm_polygraph.ue_metrics.ue_metric import get_random_scores, normalize_metric
from sklearn.metrics import roc_auc_score

MODELS: list[Any] = []


def build(folder: str, threads: int) -> dict[str, Any]:
    """Load the folder in fp32, with attention that can be read."""
    torch.set_num_threads(threads)
    loaded = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    MODELS.append(loaded.eval())
    names = ("lm-polygraph", "transformers", "torch")
    return {name: version(name) for name in names}


def score(prompts: list[list[int]], answers: list[list[int]]) -> dict[str, Any]:
    """The scores of each answer after its prompt, by the estimators' own names."""
    found: dict[str, list[float]] = {}
    for prompt, answer in zip(prompts, answers, strict=True):
        logprobs, attention = _read(prompt, answer)
        likelihoods = [float(row[token]) for row, token in zip(logprobs, answer, strict=True)]
        stats = {"greedy_log_likelihoods": [likelihoods], "attention_all": [attention]}
        stats |= EntropyCalculator()({"greedy_log_probs": [logprobs]})
        for estimator in _estimators():
            found.setdefault(str(estimator), []).append(float(estimator(stats)[0]))
    return found


def judge(scores: dict[str, list[float]], wrong: list[int]) -> dict[str, Any]:
    """AUROC and PRR of each score as its evaluation has them: PRR between a random order and that of the truth."""
    area, right = PredictionRejectionArea(), 1 - numpy.array(wrong, dtype=float)
    chance, best = get_random_scores(area, right), area(-right, right)
    return {
        name: {
            "auroc": float(roc_auc_score(wrong, values)),
            "prr": float(normalize_metric(area(values, right), best, chance)),
        }
        for name, values in scores.items()
    }


def _estimators() -> tuple[Any, ...]:
    config = MODELS[0].config
    attention = RAUQ(n_layers=config.num_hidden_layers, n_heads=config.num_attention_heads)
    return MaximumSequenceProbability(), Perplexity(), MeanTokenEntropy(), attention


def _read(prompt: list[int], answer: list[int]) -> tuple[list[numpy.ndarray], numpy.ndarray]:
    """log p of the whole vocabulary at each token of the answer; and for each step of writing it what the place that
    wrote sees of the answer so far, [layers · heads, n, n]."""
    with torch.inference_mode():
        found = MODELS[0](torch.tensor([prompt + answer[:-1]]), output_attentions=True)
    begin, n = len(prompt), len(answer)
    logprobs = list(found.logits[0, begin - 1 :].float().log_softmax(-1).numpy())
    patterns = torch.cat([each[0] for each in found.attentions]).numpy()
    attention = numpy.zeros((len(patterns), n, n))
    for step in range(1, n):
        attention[:, step, :step] = patterns[:, begin + step - 1, begin : begin + step]
    return logprobs, attention


if __name__ == "__main__":
    serve({"build": build, "score": score, "judge": judge})
