"""A corpus and a recipe for every task, from fresh weights and from a model, small enough to train within a test.

`write_corpora` writes the files of all tasks into one folder; `recipe_of` gives the recipe of a name of `TASKS`. Those
of `TUNED` start from one of the `BASES`, runs of other names, found under a folder of runs.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from tiny_runs import WORDS

from glassformer.training.display import Silent
from glassformer.training.experiment import train
from glassformer.training.jobs import Prepared, job_of
from glassformer.training.jobs.job import Given
from glassformer.training.recipes import Recipe, read_recipe
from glassformer.training.starting import open_start

PEOPLE, PLACES, FOODS = ["ann", "bob", "cid", "dora", "eve"], ["rome", "paris", "york"], ["rice", "bread", "soup"]
ENCODER = {"size": "bert-base", "n_encoder_layers": 2, "d_model": 16, "n_heads": 2, "d_ff": 32, "max_length": 48}
DECODER = {"size": "gpt2", "n_decoder_layers": 2, "d_model": 16, "n_heads": 2, "d_ff": 32, "max_length": 96}
BOTH = {"size": "transformer-tiny", "n_encoder_layers": 1, "n_decoder_layers": 1, "d_model": 16, "n_heads": 2}
LSTM = {"size": "lstm-tiny", "d_model": 16, "attention": "additive", "max_length": 96}
CONVS2S = {"size": "convs2s-tiny", "d_model": 16, "n_encoder_layers": 2, "n_decoder_layers": 2, "max_length": 96}
TRAINING: dict[str, Any] = {
    **{"steps": 8, "batch_tokens": 96, "learning_rate": 1e-2, "warmup": 2, "clip": 1.0, "seed": 1},
    **{"evaluate_every": 4, "checkpoint_every": 2, "log_every": 3, "keep": 2, "samples": 1},
    **{"precision": "fp32", "device": "cpu", "optimizer": "adamw", "weight_decay": 0.01},
}


def _files(name: str, ending: str) -> dict[str, str]:
    return {split: f"{name}-{'train' if split == 'train' else 'valid'}{ending}" for split in ("train", "valid", "test")}


_BPE = {"tokenizer": "bpe", "vocab_size": 60, "min_frequency": 1}
_PIECES = {"tokenizer": "wordpiece", "vocab_size": 90, "min_frequency": 1, "lowercase": True}
_SPANS = {"max_tokens": 20, "stride": 5}

FRESH: dict[str, dict[str, Any]] = {
    "characters": {
        "task": "language-modeling",
        "data": {**_files("text", ".txt"), "context": 16},
        "text": {"tokenizer": "character"},
        "model": DECODER,
        "evaluation": {"average": 2},
    },
    "documents": {
        "task": "language-modeling",
        "data": {**_files("text", ".txt"), "documents": "blank-line", "context": 12},
        "text": _BPE,
        "model": DECODER,
        "training": {"optimizer": "muon", "accumulate": 2},
        "evaluation": {"metric": "accuracy"},
    },
    "masked": {
        "task": "masked-language-modeling",
        "data": {**_files("text", ".txt"), "documents": "blank-line", "context": 16},
        "text": _PIECES,
        "model": ENCODER,
        "evaluation": {"average": 2},
    },
    "labels": {
        "task": "classification",
        "data": {**_files("labels", ".tsv")},
        "text": _PIECES,
        "model": ENCODER,
        "evaluation": {"metric": "macro_f1"},
    },
    "labels-agreeing": {
        "task": "classification",
        "data": {**_files("labels", ".tsv")},
        "text": _PIECES,
        "model": ENCODER,
        "training": {"consistency": 1.0},
        "evaluation": {"metric": "accuracy"},
    },
    "questions": {
        "task": "question-answering",
        "data": {**_files("questions", ".json"), **_SPANS},
        "text": _PIECES,
        "model": ENCODER,
        "evaluation": {"metric": "f1", "examples": 6},
    },
    "refusals": {
        "task": "question-answering",
        "data": {**_files("refusals", ".json"), **_SPANS, "negatives": 0.5},
        "text": _PIECES,
        "model": ENCODER,
        "evaluation": {"metric": "exact_match"},
    },
    "summaries": {
        "task": "summarization",
        "data": {**_files("mails", ".jsonl"), "truncate": True, "max_tokens": 32},
        "text": {**_BPE, "lowercase": True},
        "model": {**BOTH, "d_ff": 32, "max_length": 96},
        "evaluation": {"metric": "rougeL", "examples": 3},
    },
    "summaries-lstm": {
        "task": "summarization",
        "data": {**_files("mails", ".jsonl"), "truncate": True, "max_tokens": 32},
        "text": _BPE,
        "model": LSTM,
        "training": {"optimizer": "muon"},
        "evaluation": {"metric": "rouge1", "examples": 3, "average": 2},
    },
    "summaries-convs2s": {
        "task": "summarization",
        "data": {**_files("mails", ".jsonl"), "truncate": True, "max_tokens": 32},
        "text": _BPE,
        "model": CONVS2S,
        "evaluation": {"metric": "rouge2", "examples": 3},
    },
    "prompts": {
        "task": "summarization",
        "data": {**_files("mails", ".jsonl"), "truncate": True, "prompt": "mail: {text}\nshort:"},
        "text": _BPE,
        "model": DECODER,
        "evaluation": {"metric": "rouge1", "examples": 3},
    },
}

LORA = {"lora": 2, "lora_alpha": 4.0, "lora_dropout": 0.1}
BASES = ("masked", "documents", "summaries")
TUNED: dict[str, tuple[str, str, dict[str, Any]]] = {
    # name: the base, the task of FRESH, and [finetune]
    "labels-lora": ("masked", "labels", LORA),
    "questions-lora": ("masked", "questions", {**LORA, "head_rate": 2.0}),
    "refusals-lora": ("masked", "refusals", {**LORA, "lora_layers": ["to_query", "up"]}),
    "documents-lora": ("documents", "documents", LORA),
    "prompts-lora": ("documents", "prompts", LORA),
    "summaries-lora": ("summaries", "summaries", LORA),
    "labels-head": ("masked", "labels", {"freeze": ["all-but-head"]}),
    "questions-frozen": ("masked", "questions", {"freeze": ["embedding", "blocks[0]"], "layer_decay": 0.8}),
    "documents-frozen": ("documents", "documents", {"freeze": ["blocks[:1]"]}),
    "summaries-frozen": ("summaries", "summaries", {"freeze": ["encoder.blocks"]}),
    "masked-fresh": ("masked", "masked", {"fresh": True}),
}
TASKS = (*FRESH, *TUNED)


def recipe_of(name: str, bases: Path | None = None, **overrides: Any) -> Recipe:
    """The recipe of a name of `TASKS`; `bases` is the folder with the runs of `BASES`, `overrides` as for a recipe,
    with `_` for the point: `training_steps=4`."""
    base, task, finetune = TUNED.get(name, ("", name, {}))
    content = FRESH[task]
    one_dropout = content["model"].get("size") in ("lstm-tiny", "convs2s-tiny")
    dropouts = {"dropout": 0.1} if one_dropout else {"dropout": 0.1, "attention_dropout": 0.1}
    model = {**dropouts, **({} if base else content["model"])}
    sections = {**content, "training": {**TRAINING, **content.get("training", {})}, "model": model}
    if base:
        sections["finetune"] = {"model": str(bases / base) if bases is not None else base, **finetune}
    values = {
        f"{section}.{key}": value
        for section, keys in sections.items()
        if isinstance(keys, dict)
        for key, value in keys.items()
    }
    given = {key.replace("_", ".", 1): value for key, value in overrides.items()}
    plain = Recipe(name=name.replace("-", "_"), task=content["task"])
    return read_recipe(plain, {**values, **given})


class Trained:
    """Runs of `TASKS` in one folder, which train when they are first asked for; `data` is their data root."""

    def __init__(self, folder: Path) -> None:
        self.runs, self.data = folder / "runs", write_corpora(folder / "data")

    def __call__(self, name: str) -> Path:
        """The finished run of that name."""
        run = self.runs / name
        if not run.exists():
            self.train(name, run)
        return run

    def recipe(self, name: str, **overrides: Any) -> Recipe:
        """Its recipe, from a base that is there."""
        if name in TUNED:
            self(TUNED[name][0])
        return recipe_of(name, self.runs, **overrides)

    def train(self, name: str, run: Path, **overrides: Any) -> Path:
        """A run of that recipe elsewhere."""
        train(self.recipe(name, **overrides), run=run, data_root=self.data, display=Silent())
        return run


def write_corpora(folder: Path) -> Path:
    """The training and validation files of all tasks, in `folder`, which is made; the folder again."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, (split, count) in enumerate((("train", 40), ("valid", 8))):
        draw = random.Random(number)
        texts = {
            "text": (".txt", "\n\n".join(_sentence(draw, 3, 12) for _ in range(count)) + "\n"),
            "labels": (".tsv", _labels(draw, count)),
            "questions": (".json", json.dumps(squad(draw, count // 4, 0.0))),
            "refusals": (".json", json.dumps(squad(draw, count // 4, 0.4))),
            "mails": (".jsonl", _mails(draw, count)),
        }
        for name, (ending, text) in texts.items():
            (folder / f"{name}-{split}{ending}").write_text(text, encoding="utf-8")
    return folder


def _sentence(draw: random.Random, least: int, most: int) -> str:
    return " ".join(draw.choice(WORDS) for _ in range(draw.randint(least, most)))


def _labels(draw: random.Random, count: int) -> str:
    """Texts with the label "much" where "ten" is in them, else "little"; both are there."""
    texts = [_sentence(draw, 2, 8).replace("ten", "nine") for _ in range(count)]
    rows = [(f"ten {text}", "much") if number % 2 else (text, "little") for number, text in enumerate(texts)]
    return "text\tlabel\n" + "".join(f"{text}\t{label}\n" for text, label in rows)


def squad(draw: random.Random, count: int, refused: float) -> dict[str, Any]:
    """`count` articles of two paragraphs in SQuAD's form; a share of the questions is about somebody else."""
    articles = []
    for number in range(count):
        paragraphs = []
        for half in range(2):
            person = PEOPLE[(2 * number + half) % len(PEOPLE)]
            place, food = draw.choice(PLACES), draw.choice(FOODS)
            context = f"{_sentence(draw, 0, 9)} . {person} lives in {place} , and eats {food} . {_sentence(draw, 1, 9)}"
            asked = []
            for question, text in ((f"where does {person} live ?", place), (f"what does {person} eat ?", food)):
                name, none = f"{number}-{half}-{len(asked)}", draw.random() < refused
                answers = [] if none else [{"text": text, "answer_start": context.index(text)}]
                asked.append(
                    {
                        "id": name,
                        "question": question.replace(person, "zoe") if none else question,
                        "answers": answers,
                        "is_impossible": none,
                    }
                )
            paragraphs.append({"context": context, "qas": asked})
        articles.append({"title": f"article {number}", "paragraphs": paragraphs})
    return {"version": "tiny", "data": articles}


def _mails(draw: random.Random, count: int) -> str:
    """Documents of a few words, the summary being the first two."""
    rows = []
    for _ in range(count):
        words = [draw.choice(WORDS) for _ in range(draw.randint(4, 12))]
        rows.append(json.dumps({"document": " ".join(words), "summary": " ".join(words[:2])}) + "\n")
    return "".join(rows)


def prepared(trained: Trained, name: str, root: Path | None = None, **overrides: Any) -> Prepared:
    """What the job of a name makes of the corpora (or of those in `root`), before there is a run."""
    recipe = trained.recipe(name, **overrides)
    given = Given(recipe, root or trained.data, open_start(recipe.finetune))
    return job_of(recipe.task).prepare(given)
