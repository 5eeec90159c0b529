"""lm-eval: its `local-completions` against the server, and the model itself, give equal scores on tasks made here."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from serving.api_server import serving
from tasks.small_writers import writer

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
lm_eval = pytest.importorskip("lm_eval", reason="lm-eval is not installed")

pytestmark = pytest.mark.slow  # lm-eval and what it imports take a while

ROWS = [
    {"question": "a man in blue shirt rides", "choices": [" the bike", " the road", " naïve"], "label": 0},
    {"question": "two women", "choices": [" eat", " in blue shirt on the road", " {"], "label": 1},
    {"question": "the bike on", "choices": [" the road", " two", " eat eat"], "label": 0},
    {"question": "a", "choices": [" man", " bike", " 日本語"], "label": 2},
]
COMMON = {"dataset_path": "json", "validation_split": "validation", "test_split": None, "num_fewshot": 0}
CHOICE = {
    **COMMON,
    "task": "tiny_choice",
    "output_type": "multiple_choice",
    "doc_to_text": "{{question}}",
    "doc_to_choice": "{{choices}}",
    "doc_to_target": "{{label}}",
    "target_delimiter": "",
    "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
}
ROLLING = {
    **COMMON,
    "task": "tiny_rolling",
    "output_type": "loglikelihood_rolling",
    "doc_to_text": "",
    "doc_to_target": "{{question}}",
    "metric_list": [{"metric": "word_perplexity"}, {"metric": "byte_perplexity"}],
}
WRITING = {
    **COMMON,
    "task": "tiny_writing",
    "output_type": "generate_until",
    "doc_to_text": "{{question}}",
    "doc_to_target": "{{choices[0]}}",
    "generation_kwargs": {"until": ["e"], "max_gen_toks": 12, "do_sample": False, "temperature": 0.0},
    "metric_list": [{"metric": "exact_match"}],
}


@pytest.fixture
def tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The tasks, on a file of their own; nothing of it is kept elsewhere, nothing comes from the network."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    for variable in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(variable, raising=False)
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    own = {"data_files": {"validation": str(data)}, "cache_dir": str(tmp_path / "cache")}
    return [{**task, "dataset_kwargs": own} for task in (CHOICE, ROLLING, WRITING)]


def scores(model: Any, tasks: list[dict[str, Any]], **settings: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The results by task, and what was answered to each request."""
    found = lm_eval.simple_evaluate(model=model, tasks=tasks, bootstrap_iters=0, log_samples=True, **settings)
    answers = {name: [sample["filtered_resps"] for sample in each] for name, each in found["samples"].items()}
    return found["results"], answers


def test_equal_scores_with_and_without_a_server(tasks: list[dict[str, Any]]) -> None:
    from glassformer.serving.lm_eval import Evaluated

    model = writer(positions=200)
    direct, own = scores(Evaluated(model), tasks)
    with serving({"writer": model}) as one:
        place = f"{one.url}/v1/completions"
        told = f"model=writer,base_url={place},tokenizer_backend=remote,max_length=200,num_concurrent=1"
        served, theirs = scores("local-completions", tasks, model_args=told, batch_size=4)
    assert set(own) == {"tiny_choice", "tiny_rolling", "tiny_writing"}
    assert own["tiny_writing"] == theirs["tiny_writing"]
    for mine, other in zip(own["tiny_choice"], theirs["tiny_choice"], strict=True):
        assert [greedy for _, greedy in mine] == [greedy for _, greedy in other]
        assert [value for value, _ in mine] == pytest.approx([value for value, _ in other], abs=1e-3)
    for name, metrics in direct.items():
        for metric, value in metrics.items():
            if isinstance(value, float):
                assert served[name][metric] == pytest.approx(value, rel=1e-4), (name, metric)


def test_log_likelihoods_are_those_of_the_network() -> None:
    from lm_eval.api.instance import Instance

    from glassformer.serving.lm_eval import Evaluated

    model = writer(positions=200)
    pairs = [(row["question"], choice) for row in ROWS for choice in row["choices"]]
    asked = [Instance("loglikelihood", {}, pair, 0) for pair in pairs]
    for (context, continuation), (value, greedy) in zip(pairs, Evaluated(model).loglikelihood(asked), strict=True):
        before, ids = (model.tokenizer.encode(text, read_specials=True) for text in (context, context + continuation))
        logits = model(ids).logits[0].detach().float().log_softmax(-1)
        places = range(len(before), len(ids))
        assert value == pytest.approx(sum(float(logits[place - 1, ids[place]]) for place in places), abs=1e-3)
        assert greedy == all(int(logits[place - 1].argmax()) == ids[place] for place in places)
