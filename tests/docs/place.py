"""A folder in which the pages' commands work: everything that they name is there, and tiny.

`smollm2-135m-instruct` is a folder here, which comes before the known model of that name: a Llama of 20 thin layers
with random weights. `all-minilm-l6-v2` is the real one (make models): the readers of the package are adapters on it.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import tokenizers
import torch
from processes import SENTENCES
from tasks.small_writers import writer
from tiny_models import save_encoder
from tiny_tasks import Trained
from tokenizers import decoders, models, pre_tokenizers, trainers
from tour.small_corpora import write_data

import glassformer as gf
from glassformer.checkpoints.native import shipped, weights_folder
from glassformer.models.config import MaskedLM
from glassformer.models.decoder import Decoder
from glassformer.tasks.model import Model
from glassformer.text.pipeline import TextPipeline
from glassformer.text.tokenizer import Tokenizer

ROOT = Path(__file__).parents[2]
CHAT = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
WORDS = 7100  # more than the ids that pages name
LOUVRE = "The Mona Lisa is a portrait by Leonardo da Vinci. It was painted between 1503 and 1519.\n"
SCHEMA = {"type": "object", "properties": {"age": {"type": "boolean"}}, "required": ["age"]}
PRODUCTS = {"Game Boy": "Nintendo", "Walkman": "Sony", "Wii": "Nintendo", "PlayStation": "Sony"}
PRODUCTS |= {"Switch": "Nintendo", "Bravia": "Sony", "Donkey Kong": "Nintendo", "Betamax": "Sony"}
REAL_PRODUCTS = {  # so many that a probe has five known ones of each company beside the four that a prompt shows
    **PRODUCTS,
    **dict.fromkeys(("GameCube", "Game Boy Advance", "Wii U", "Super Mario", "Wii Fit"), "Nintendo"),
    **dict.fromkeys(("PlayStation 2", "PlayStation 3", "PlayStation Portable", "Xperia", "MiniDisc"), "Sony"),
}
"""For pages that need SmolLM2 itself."""

STEPS = {"training.steps": 3, "training.evaluate_every": 3, "training.warmup": 1, "training.log_every": 1}
WIDTH = {"model.d_model": 32, "model.n_heads": 2, "model.d_ff": 64}
DEPTHS = {"model.n_encoder_layers": 2, "model.n_decoder_layers": 2}
PIECES = {"text.vocab_size": 300, "text.min_frequency": 1}
FEW = {"training.batch_tokens": 256, "training.samples": 0}
TUNED = {**STEPS, "training.batch_tokens": 128, "training.samples": 0}
GPT = {**STEPS, **WIDTH, "model.n_decoder_layers": 2, **FEW}
TRANSLATOR = {**STEPS, **PIECES, **FEW, "evaluation.metric": "loss"}
SMALLER: dict[str, dict[str, Any]] = {
    "dates": {**STEPS, **WIDTH, **FEW},
    "shakespeare-char": GPT,
    "wiki-gpt": {**GPT, **PIECES},
    "wiki-bert": {**STEPS, **WIDTH, "model.n_encoder_layers": 2, **PIECES, **FEW},
    "sst2": TUNED,
    "squad": {**TUNED, "training.batch_tokens": 256},
    "squad-rules": {**TUNED, "training.batch_tokens": 256},
    "squad-refusal": {**TUNED, "training.batch_tokens": 256},
    "aeslc": {**TUNED, "training.batch_tokens": 512, "evaluation.metric": "loss"},
    "aeslc-scratch": {**STEPS, **WIDTH, **DEPTHS, **PIECES, **FEW, "evaluation.metric": "loss"},
    "multi30k-en-de": {**TRANSLATOR, **WIDTH, **DEPTHS},
    "multi30k-en-de-tok": {**TRANSLATOR, **WIDTH, **DEPTHS},
    "multi30k-en-de-transformer": {**TRANSLATOR, **WIDTH, **DEPTHS},
    "translation": {**TRANSLATOR, **WIDTH, **DEPTHS},
    "multi30k-en-de-lstm": {**TRANSLATOR, "model.d_model": 16},
    "multi30k-en-de-convs2s": {**TRANSLATOR, "model.d_model": 16, **DEPTHS},
    "gpt3-small": {
        **GPT,
        "model.d_head": 16,
        "training.batch_ramp": 0,
        "training.accumulate": 2,
        "training.batch_tokens": 1024,
        "data.context": 128,
        "model.max_length": 128,
    },
    "athletes-gpt": {**GPT, **PIECES},
}
_TRAINING = re.compile(r"glassformer (?:train|finetune) recipes/([\w-]+)\.toml")
RESUMED = " --training.steps 10"


def smaller(command: str) -> str:
    """A training or a study with options that make it small; any other command as it is."""
    command = re.sub(r"\s+# .*$", "", command)
    if found := _TRAINING.search(command):
        for key, value in SMALLER[found[1]].items():
            command = re.sub(rf" --{re.escape(key)} \S+", "", command) + f" --{key} {value}"
        return command
    if command.startswith("glassformer average "):
        return re.sub(r"--last \d+", "--last 2", command)  # as many as a run of ten steps keeps
    if re.match(r"glassformer train --resume ", command):
        return command + RESUMED
    if re.match(r"glassformer (compare|recall|hallucination) ", command):
        return re.sub(r" --(limit|people) \S+", "", command) + " --scale toy --threads 1"
    return command


def train_smaller(whole: Callable[..., Model]) -> Callable[..., Model]:
    """`gf.train` with these options."""
    return lambda recipe, **settings: whole(recipe, **{**settings, **SMALLER[Path(recipe).stem]})


def tokens() -> Tokenizer:
    """All bytes, the words of the pages' examples as whole tokens, and as many more as make it large."""
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    lines = ["The capital of France is", "The capital of Italy is", "Once upon a time", *PRODUCTS, *PRODUCTS.values()]
    alphabet, specials = pre_tokenizers.ByteLevel.alphabet(), ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=1000, special_tokens=specials, initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator([line for line in lines for _ in range(9)], trainer)
    backend.add_tokens([f"w{number}" for number in range(WORDS - backend.get_vocab_size())])
    return Tokenizer(backend)


def llama(layers: int = 20) -> Model:
    """SmolLM2's shape with thin layers and random weights."""
    tokenizer = tokens()
    ends = tokenizer.id_of("<|im_end|>")
    assert ends is not None
    thin = {"d_model": 288, "d_ff": 64, "n_decoder_layers": layers, "max_length": 1100}
    config = replace(
        gf.sizes["smollm2-135m"], vocab_size=tokenizer.vocab_size, bos_id=0, eos_id=ends, pad_id=ends, **thin
    )
    torch.manual_seed(0)
    return Model(Decoder(config).eval(), tokenizer, TextPipeline(unicode="none", chat_template=CHAT), "generation")


def make_place(folder: Path) -> Path:
    """All files and models; runs are `lend`'s."""
    shutil.copytree(ROOT / "recipes", folder / "recipes")
    llama().save(folder / "smollm2-135m-instruct")
    save_encoder(folder / "BERT_FOLDER", MaskedLM())
    llama(2).save_pretrained(folder / "HF_FOLDER_OR_GGUF")
    writer(positions=700).save(folder / "M")
    data = folder / "data"
    write_data(data)
    _pairs(data)
    shutil.copytree(data, folder / "DATA")
    _texts(folder)
    write_facts(folder, PRODUCTS)
    return folder


def _pairs(data: Path) -> None:
    for side, language in enumerate(("en", "de")):
        text = "".join(f"{pair[side]}\n" for pair in SENTENCES * 8)
        names = ["P", "Q", "corpus/train", "corpus/valid", "corpus/test"]
        for split in ("train", "val", "test_2016_flickr"):
            names += [f"multi30k/raw/{split}", f"multi30k/tok/{split}.lc.norm.tok"]
        for name in names:
            (data / name).parent.mkdir(parents=True, exist_ok=True)
            (data / f"{name}.{language}").write_text(text, encoding="utf-8")
    rows = "en\tde\n" + "".join(f"{source}\t{target}\n" for source, target in SENTENCES * 8)
    for name in ("train.tsv", "valid.tsv"):
        (data / name).write_text(rows, encoding="utf-8")


def _texts(folder: Path) -> None:
    verses = (folder / "data" / "tinyshakespeare" / "input.txt").read_text(encoding="utf-8")
    (folder / "FILE").write_text(f"{LOUVRE}{verses[:3000]}", encoding="utf-8")
    (folder / "mail.txt").write_text("one two three\n", encoding="utf-8")
    (folder / "schema.json").write_text(json.dumps(SCHEMA), encoding="utf-8")
    lines = "".join(f"{source}\n" for source, _ in SENTENCES)
    for name in ("lines", "lines.en", "lines.txt"):
        (folder / name).write_text(lines, encoding="utf-8")
    texts = {"corpus/a.txt": verses, "corpus/b.txt": verses, "valid.txt": verses}
    for name, text in ({"DIR/louvre.txt": LOUVRE} | texts).items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    records = "".join(json.dumps({"text": line}) + "\n" for line in verses.splitlines() if line)
    for name in ("corpus/a.jsonl", "valid.jsonl"):
        (folder / name).write_text(records, encoding="utf-8")
    mine = folder / "data" / "mine"
    mine.mkdir()
    (mine / "notes.txt").write_text(verses.replace("!\n", "!\n\n"), encoding="utf-8")
    rows = [f"{text}\t{('bad', 'good')[number % 2]}\n" for number, (text, _) in enumerate(SENTENCES * 8)]
    for split in ("train", "valid", "test"):
        (mine / f"{split}.tsv").write_text("text\tlabel\n" + "".join(rows), encoding="utf-8")
    people = "".join(f"Ann{number} Bee\t{('basketball', 'baseball')[number % 2]}\n" for number in range(60))
    for root in ("data", "DATA"):
        (folder / root / "sports_players").mkdir()
        (folder / root / "sports_players" / "athletes_unique.tsv").write_text(
            f"name\tsport\n{people}", encoding="utf-8"
        )


def write_facts(folder: Path, products: dict[str, str]) -> Path:
    """Files of a relation and of facts; the folder again."""
    samples = [{"subject": subject, "object": answer} for subject, answer in products.items()]
    relation = {"name": "product by company", "prompt_templates": ["{} was created by"], "samples": samples}
    for name in ("product_by_company.json", "landmark_in_country.json"):
        (folder / name).write_text(json.dumps(relation), encoding="utf-8")
    facts = "".join(json.dumps({"subject": s, "answers": [a]}) + "\n" for s, a in products.items())
    (folder / "facts.jsonl").write_text(facts, encoding="utf-8")
    return folder


def lend(trained: Trained, place: Path, runs: dict[str, str]) -> None:
    """No runs but those that a page has not made and names all the same: name → task of `tiny_tasks`, or a model that
    comes with the package."""
    shutil.rmtree(place / "runs", ignore_errors=True)
    for name, task in runs.items():
        shutil.copytree(weights_folder() / task if task in shipped() else trained(task), place / "runs" / name)
    if runs:
        shutil.copytree(trained.data, place / "data", dirs_exist_ok=True)
