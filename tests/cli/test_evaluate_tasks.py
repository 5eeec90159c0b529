"""`glassformer evaluate` for every task: what is measured, on the recipe's data and on others."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from processes import Glassformer, run_inside
from tiny_tasks import FRESH, TASKS, TUNED, Trained

import glassformer as gf
from glassformer.tasks.answer import evaluate_answers
from glassformer.tasks.classify import evaluate_labels
from glassformer.tasks.summarize import evaluate_summaries
from glassformer.training.jobs.answering import split_questions
from glassformer.training.jobs.classification import read_labelled
from glassformer.training.jobs.language import evaluate_documents, split_documents
from glassformer.training.jobs.summarization import split_summaries

MEASURED = {
    "language-modeling": {"loss", "loss_interval", "perplexity", "bits_per_byte", "n", "n_documents", "context"},
    "masked-language-modeling": {"loss", "loss_interval", "perplexity", "accuracy", "n"},
    "classification": {"accuracy", "accuracy_interval", "macro_f1", "n"},
    "question-answering": {"exact_match", "exact_match_interval", "f1", "f1_interval", "n"},
    "summarization": {"rouge1", "rouge1_interval", "rouge2", "rougeL", "n", "cut_off"},
}


def scores(*arguments: object) -> dict[str, Any]:
    done = run_inside("evaluate", *arguments, "--json")
    assert done.code == 0, done.err
    found: dict[str, Any] = json.loads(done.out)
    return found


def without_time(found: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in found.items() if key != "seconds"}


@pytest.mark.parametrize("name", TASKS)
def test_every_task_is_measured_on_its_test_data(trained: Trained, name: str) -> None:
    found = scores(trained(name))
    task = FRESH[TUNED[name][1] if name in TUNED else name]["task"]
    few = name == "characters" or task == "masked-language-modeling"
    several = {"loss_interval"} if few else set()  # one document, or one batch, has no interval
    assert MEASURED[task] - several <= found.keys()
    assert found["n"] > 0 and found["seconds"] > 0
    for key, value in found.items():
        if key.endswith("_interval"):
            assert value[0] <= found[key.removesuffix("_interval")] <= value[1], key


def test_the_scores_are_those_of_the_functions(trained: Trained) -> None:
    """Each with the settings of the recipe."""
    root = trained.data
    for name, wanted in (
        ("labels-lora", lambda m, r: evaluate_labels(m, *read_labelled(r.data, "test", root))),
        (
            "questions-lora",
            lambda m, r: evaluate_answers(m, split_questions(r.data, "test", root), max_tokens=20, stride=5),
        ),
        (
            "refusals",
            lambda m, r: evaluate_answers(m, split_questions(r.data, "test", root), max_tokens=20, stride=5),
        ),
        (
            "summaries",
            lambda m, r: evaluate_summaries(
                m, *_sides(split_summaries(r.data, "test", root)), beam=5, truncate=True, max_tokens=32
            ),
        ),
        ("documents-lora", lambda m, r: evaluate_documents(m, split_documents(r.data, "test", root), 12)),
    ):
        found = wanted(gf.load(trained(name)), trained.recipe(name))
        assert without_time(scores(trained(name))) == without_time(found), name


def _sides(pairs: Any) -> tuple[list[str], list[str]]:
    return pairs.source, pairs.target


def test_settings_of_the_command_go_before_the_recipes(trained: Trained) -> None:
    run = trained("refusals")
    assert scores(run, "--threshold", "0")["threshold"] == 0.0
    assert scores(run, "--threshold", "-1e9")["f1"] != scores(run, "--threshold", "1e9")["f1"]
    wide, narrow = (scores(trained("documents"), "--context", context, "--stride", 2) for context in (16, 4))
    assert (narrow["context"], narrow["stride"]) == (4, 2) and wide["context"] > 4
    assert scores(trained("summaries"), "--beam", 1)["rouge1"] == pytest.approx(
        evaluate_summaries(
            gf.load(trained("summaries")),
            *_sides(split_summaries(trained.recipe("summaries").data, "test", trained.data)),
            truncate=True,
            max_tokens=32,
        )["rouge1"]
    )
    assert scores(trained("labels"), "--split", "train")["n"] == 40


def test_a_perplexity_over_documents(trained: Trained) -> None:
    """Every document alone: the loss is that of all their tokens together."""
    run = trained("documents")
    model = gf.load(run)
    documents = split_documents(trained.recipe("documents").data, "test", trained.data)
    nll, count = 0.0, 0
    for document in documents:
        ids = [model.config.bos_id, *model.tokenizer.encode(document)]
        one = model.perplexity(ids, context=max(2, min(12, len(ids))))
        nll, count = nll + one.nll, count + one.n_tokens
    assert scores(trained("characters"))["context"] == 16  # the recipe's, of the 96 that the model could read
    found = scores(run)
    assert found["loss"] == pytest.approx(nll / count) and found["perplexity"] == pytest.approx(math.exp(nll / count))
    assert found["n"] == count and found["n_documents"] == len(documents)


def test_other_data(trained: Trained, tmp_path: Path) -> None:
    (tmp_path / "own.jsonl").write_text('{"sentence": "one two", "label": "much"}\n', encoding="utf-8")
    found = scores(trained("labels-lora"), "--data", tmp_path / "own.jsonl", "--fields", "sentence,label")
    assert found["n"] == 1 and found["accuracy"] in (0.0, 1.0)
    (tmp_path / "mails.jsonl").write_text('{"document": "one two", "summary": "one"}\n', encoding="utf-8")
    assert scores(trained("prompts"), "--data", tmp_path / "mails.jsonl")["n"] == 1
    (tmp_path / "q.jsonl").write_text(
        '{"question": "where ?", "context": "in rome", "answers": ["rome"]}\n', encoding="utf-8"
    )
    assert scores(trained("questions"), "--data", tmp_path / "q.jsonl")["n"] == 1
    (tmp_path / "text.txt").write_text("one two three\n\nfour five\n", encoding="utf-8")
    assert scores(trained("documents"), "--data", tmp_path / "text.txt")["n_documents"] == 2


@pytest.mark.parametrize(("name", "columns"), [("labels", ("sentence", "label")), ("prompts", ("body", "subject"))])
def test_other_data_have_the_columns_of_the_recipe(
    trained: Trained, tmp_path: Path, name: str, columns: tuple[str, str]
) -> None:
    rows = [json.dumps(dict(zip(columns, (f"{word} two three", word), strict=True))) for word in ("one", "ten")]
    (tmp_path / "own.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    path = str(tmp_path / "own.jsonl")
    own = {"data_train": path, "data_valid": path, "data_fields": list(columns), "training_steps": 1}
    run = trained.train(name, tmp_path / "run", **own, evaluation_metric="loss")
    assert scores(run, "--data", path)["n"] == 2
    other = run_inside("evaluate", run, "--data", path, "--fields", f"{columns[0]},absent")
    assert other.code == 2 and "'absent'" in other.err


def test_a_model_without_a_recipe_is_measured_by_its_head(trained: Trained, tmp_path: Path) -> None:
    for name, data in (
        ("labels", "labels-valid.tsv"),
        ("questions", "questions-valid.json"),
        ("masked", "text-valid.txt"),
        ("documents", "text-valid.txt"),
    ):
        folder = gf.load(trained(name)).save_pretrained(tmp_path / name)
        found = scores(folder, "--data", trained.data / data)
        assert MEASURED[FRESH[name]["task"]] - {"loss_interval", "n_documents"} <= found.keys()


def test_the_table_has_a_line_for_each_score(trained: Trained, glassformer: Glassformer) -> None:
    done = glassformer("evaluate", trained("labels-lora"))
    assert (done.code, done.err) == (0, "")
    rows = dict(line.split(maxsplit=1) for line in done.out.splitlines())
    assert rows["n"] == "8" and 0 <= float(rows["accuracy"]) <= 1
    low, high = map(float, rows["accuracy_interval"].split(" to "))
    assert low <= float(rows["accuracy"]) <= high


def test_mistakes(trained: Trained, tmp_path: Path) -> None:
    (tmp_path / "own.tsv").write_text("text\tlabel\none\tmany\n", encoding="utf-8")
    whole = gf.load(trained("labels")).save(tmp_path / "whole")
    for arguments, hints in (
        ([trained("labels"), "--data", tmp_path / "own.tsv"], ["text 1 has the label 'many'", "little, much"]),
        ([trained("labels"), "--data", tmp_path / "own.tsv", "--fields", "text,lable"], ["own.tsv:1", "'label'"]),
        ([trained("labels"), "--data", tmp_path / "absent.tsv"], ["absent.tsv", "no such file"]),
        ([trained("labels"), "--fields", "a,b"], ["give them with --data"]),
        ([trained("labels"), "--context", 5], ["--text"]),
        ([trained("labels"), "--data-root", tmp_path], ["labels-valid.tsv", "no such file"]),
        ([whole], ["does not say which data", "--data"]),
        ([trained("labels"), "--text", tmp_path / "own.tsv"], ["(classify)"]),
        ([trained("summaries"), "--data", tmp_path / "own.tsv"], ["own.tsv:1", "'document'"]),
        (["absent"], ["No model 'absent'"]),
    ):
        done = run_inside("evaluate", *arguments)
        assert (done.code, done.out) == (2, "") and done.err.count("\n") == 1, (arguments, done.err)
        assert done.err.startswith("error: ") and all(hint in done.err for hint in hints), done.err
