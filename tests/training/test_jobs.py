"""From files to batches, for every task: what a fingerprint tells apart, and what is refused by file, line and name."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_tasks import FRESH, Trained, prepared

from glassformer.errors import InputError
from glassformer.models.config import Classification
from glassformer.text.documents import read_documents
from glassformer.text.examples import IGNORE, TextBatch
from glassformer.text.people import people_documents, read_people
from glassformer.text.tokenizer import Tokenizer
from glassformer.training import experiment
from glassformer.training.display import Silent
from glassformer.training.experiment import resume, train
from glassformer.training.jobs.classification import read_labelled
from glassformer.training.jobs.language import people_of, split_documents
from glassformer.training.recipes import Data, Recipe, read_recipe
from glassformer.training.runs import Run
from glassformer.training.starting import build, open_start
from glassformer.training.trainer import Trainer


@pytest.fixture
def root(trained: Trained, tmp_path: Path) -> Path:
    """A copy of the corpora, to be changed."""
    return Path(shutil.copytree(trained.data, tmp_path / "data"))


# --- Fingerprints -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", ["train", "valid"])
@pytest.mark.parametrize("name", FRESH)
def test_a_fingerprint_changes_with_the_data_of_either_split(
    trained: Trained, root: Path, name: str, split: str
) -> None:
    before = prepared(trained, name, root).fingerprint
    assert prepared(trained, name, root).fingerprint == before
    path = root / FRESH[name]["data"][split]
    text = path.read_text()
    assert "nine" in text
    path.write_text(text.replace("nine", "eight", 1))
    assert prepared(trained, name, root).fingerprint != before


def test_a_fingerprint_changes_with_what_is_to_be_learnt_alone(trained: Trained, root: Path) -> None:
    """The texts stay, a label, an answer, a summary, the border of a document do not."""
    for name, old, new in (
        ("labels", "much\n", "little\n"),
        ("questions", '{"text": "rome"', '{"text": "lives"'),
        ("summaries", '"summary": "', '"summary": "nine '),
        ("prompts", '"summary": "', '"summary": "nine '),
        ("documents", "\n\n", "\n \n \n"),
        ("masked", "\n\n", " "),
    ):
        before = prepared(trained, name, root).fingerprint
        path = root / FRESH[name]["data"]["train"]
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))
        changed = prepared(trained, name, root).fingerprint != before
        assert changed == (name != "documents"), name  # more blank lines are the same border
        path.write_text(text)


def test_a_run_is_not_resumed_with_other_data(trained: Trained, root: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(trained("labels-lora"), tmp_path / "run"))
    path = root / "labels-train.tsv"
    path.write_text(path.read_text().replace("much\n", "little\n", 1))
    with pytest.raises(InputError, match="begun with other data"):
        resume(run, data_root=root, display=Silent())


# --- Classification ---------------------------------------------------------------------------------------------------


def test_labels_are_those_of_training_in_order_or_as_the_recipe_names_them(trained: Trained) -> None:
    assert prepared(trained, "labels").head == Classification(("little", "much"))
    named = prepared(trained, "labels", data_labels={"much": "a lot", "little": "hardly any"})
    assert named.head == Classification(("a lot", "hardly any"))
    assert set(named.held[1]) == {"a lot", "hardly any"}
    more = prepared(trained, "labels", data_labels={"much": "m", "little": "l", "nothing": "n"})
    assert more.head == Classification(("m", "l", "n"))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"data_labels": {"mucho": "m", "little": "l"}}, r"labels-train.tsv: text 2 has the label 'much', and "),
        ({"data_labels": {"mucho": "m", "little": "l"}}, "'data.labels' names mucho, little. Did you mean 'mucho'"),
        ({"data_labels": {"much": "m", "little": "m"}}, r"needs at least 2 labels, and the training data have 1"),
        ({"data_labels": {"much": 1}}, "'labels' must give each label a name, as in {0 = \"negative\"}"),
        ({"data_fields": ["text", "lable"]}, r"labels-train.tsv:1: there is no column 'lable', .* mean 'label'"),
        ({"data_fields": ["text"]}, r"'data.fields' must name two columns, the text and its label; got \['text'\]"),
        (
            {"data_max_tokens": 4},
            "The train data: line 1 has .* reads at most 4: .*recipe that is 'data.truncate'",
        ),
        ({"training_batch_tokens": 5}, "more than the batch budget of 5: raise 'training.batch_tokens'"),
    ],
)
def test_what_a_recipe_of_labels_says_wrongly(trained: Trained, overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        prepared(trained, "labels", **overrides)


def test_labels_never_seen_in_training(trained: Trained, root: Path) -> None:
    path = root / "labels-valid.tsv"
    path.write_text("text\tlabel\none\tlittle\ntwo\tMuch\n")
    with pytest.raises(InputError, match="Text 2 of the valid data has the label 'Much', which training never has; "):
        prepared(trained, "labels", root)
    (root / "labels-train.tsv").write_text("text\tlabel\none\tlittle\ntwo\tlittle\n")
    with pytest.raises(InputError, match=r"at least 2 labels, and the training data have 1: \('little',\)"):
        prepared(trained, "labels", root)


def test_labels_of_several_files_and_as_numbers(root: Path) -> None:
    (root / "a.jsonl").write_text('{"text": "one", "label": 1}\n')
    (root / "b.jsonl").write_text('{"text": "two", "label": 0}\n{"text": "ten", "label": true}\n')
    data = Data(train=["a.jsonl", "b.jsonl"])
    assert read_labelled(data, "train", root) == (["one", "two", "ten"], ["1", "0", "true"])
    named = dataclasses.replace(data, labels={"1": "good", "0": "bad"})
    with pytest.raises(InputError, match="b.jsonl: text 2 has the label 'true'"):
        read_labelled(named, "train", root)


def test_a_long_text_is_cut_off_within_its_frame(trained: Trained, root: Path) -> None:
    path = root / "labels-train.tsv"
    path.write_text(path.read_text() + "one " * 60 + "\tmuch\n")
    with pytest.raises(InputError, match="The train data: line 41 has 62 tokens, the model reads at most 48"):
        prepared(trained, "labels", root)
    for most in (48, 9):
        found = prepared(trained, "labels", root, data_truncate=True, data_max_tokens=most)
        ids = found.train.batch(torch.tensor([40]).numpy()).ids[0].tolist()
        assert len(ids) == most
        assert ids[0] == found.tokenizer.cls_id and ids[-1] == found.tokenizer.sep_id


# --- Broken files -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "key", "line", "message"),
    [
        ("labels", "label", '{"text": "one", ', r"t.jsonl:2: not a JSON object"),
        ("labels", "label", "[1]", r"t.jsonl:2: "),
        ("labels", "label", '{"text": "one", "lable": "x"}', r"t.jsonl:2: there is no key 'label', .*mean 'lable'"),
        ("summaries", "summary", '{"document": "one"}', r"t.jsonl:2: there is no key 'summary', only 'document'"),
        ("prompts", "summary", "nothing", r"t.jsonl:2: not a JSON object"),
        ("characters", "text", '{"txt": "one"}', r"t.jsonl:2: there is no key 'text', only 'txt'"),
        ("masked", "text", '{"text": 3}', r"t.jsonl:2: .*text"),
    ],
)
def test_a_broken_line_is_named(trained: Trained, root: Path, name: str, key: str, line: str, message: str) -> None:
    good = json.dumps({"text": "one two", "document": "one two three", key: "x y z"})
    (root / "t.jsonl").write_text(f"{good}\n{line}\n")
    with pytest.raises(InputError, match=message):
        prepared(trained, name, root, data_train="t.jsonl", data_documents="file")


def test_pairs_without_a_side_are_counted(trained: Trained, root: Path) -> None:
    path = root / "mails-train.jsonl"
    path.write_text(path.read_text() + '{"document": " ", "summary": "one"}\n{"document": "one", "summary": ""}\n')
    with pytest.warns(UserWarning, match=r"2 of 42 pairs have an empty side and were left out \(pair 41, 42\)"):
        assert "40 documents" in prepared(trained, "summaries", root).counts


@pytest.mark.parametrize("name", FRESH)
def test_missing_and_empty_files_are_named(trained: Trained, root: Path, name: str) -> None:
    for split in ("train", "valid"):
        path = root / FRESH[name]["data"][split]
        content = path.read_bytes()
        path.write_bytes(b" \n")
        with pytest.raises(InputError, match=f"{path.name}: .*empty"):
            prepared(trained, name, root)
        path.unlink()
        with pytest.raises(InputError, match=f"{path.name}: there is no such file"):
            prepared(trained, name, root)
        path.write_bytes(content)
    with pytest.raises(InputError, match="names no valid data: set 'data.valid'"):
        prepared(trained, name, root, data_valid="")


# --- Documents and summaries ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "overrides", "message"),
    [
        ("characters", {"data_context": 97}, "'data.context' must be at most the model's 96 positions, got 97"),
        ("masked", {"data_context": 49}, "'data.context' must be at most the model's 48 positions, got 49"),
        ("characters", {"training_batch_tokens": 15}, r"'training.batch_tokens' must hold a window of 16 tokens"),
        ("masked", {"training_batch_tokens": 15}, r"'training.batch_tokens' must hold a window of 16 tokens"),
        ("characters", {"text_tokenizer": "wordpiece"}, "no token that ends a text: 'text.tokenizer' must be bpe"),
        ("prompts", {"text_tokenizer": "wordpiece"}, "no token that ends a text: 'text.tokenizer' must be bpe"),
        ("summaries", {"data_truncate": False, "data_max_tokens": 6}, "The train data: text 1 has .* room for 5: "),
        ("prompts", {"data_truncate": False, "data_max_tokens": 19}, "The train data: text .* has .*'data.truncate'"),
        ("prompts", {"data_max_tokens": 3}, "the longest summary of the train data leaves no room in 3 tokens"),
        ("prompts", {"data_max_tokens": 12}, "The train data: the prompt alone has .* shorten it.$"),
        ("prompts", {"data_prompt": "no place"}, "'prompt' must hold {text} once"),
        ("summaries", {"data_train": ["a", "b"]}, "'data.train' must be one file for this task, got 2"),
    ],
)
def test_what_a_recipe_of_documents_says_wrongly(
    trained: Trained, name: str, overrides: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        prepared(trained, name, **overrides)


def test_documents_are_those_of_all_files_and_shares(root: Path) -> None:
    whole = read_documents(root / "text-train.txt", "blank-line")
    data = Data(train=["text-train.txt", "text-valid.txt"], documents="blank-line")
    assert split_documents(data, "train", root) == [*whole, *read_documents(root / "text-valid.txt", "blank-line")]
    part = split_documents(dataclasses.replace(data, train="text-train.txt[0:0.5]"), "train", root)
    assert part[:-1] == whole[: len(part) - 1] and 0 < len(part) < len(whole)


def test_documents_of_text_and_of_columns_in_one_list(root: Path) -> None:
    """`documents` speaks of the text alone, and a file named twice is read twice."""
    (root / "films.tsv").write_text("a good film\t1\na bad one\t0\n")
    data = Data(train=["text-train.txt", "films.tsv", "films.tsv"], documents="blank-line", column="1")
    whole = read_documents(root / "text-train.txt", "blank-line")
    assert split_documents(data, "train", root) == [*whole, *["a good film", "a bad one"] * 2]
    with pytest.raises(InputError, match="each row is a document"):
        split_documents(dataclasses.replace(data, train="films.tsv"), "train", root)


def test_prompts_hold_the_document_and_learn_the_summary(trained: Trained) -> None:
    found = prepared(trained, "prompts")
    batch: TextBatch = found.train.batch(torch.tensor([0]).numpy())
    text = found.tokenizer.decode(batch.ids[0].tolist())
    learnt = batch.target[0][batch.target[0] != IGNORE].tolist()
    first = json.loads((trained.data / "mails-train.jsonl").read_text().splitlines()[0])
    document, summary = first["document"], first["summary"]
    assert text.split() == f"mail: {document} short: {summary}".split()
    assert found.tokenizer.decode(learnt).strip() == summary and learnt[-1] == found.tokenizer.eos_id
    assert learnt[0] != found.tokenizer.unk_id and found.pipeline.prompt == "mail: {text}\nshort:"


def test_a_document_that_fits_in_training_is_read_afterwards_too(trained: Trained, root: Path) -> None:
    """Whatever room is kept for the summary, it is the same for both: a training does not fail when it measures."""
    rows = [json.dumps({"document": "one " * count, "summary": "one"}) + "\n" for count in (2, 3, 4, 60)]
    (root / "mails-train.jsonl").write_text("".join(rows[:3]))
    (root / "mails-valid.jsonl").write_text("".join(rows))
    with pytest.raises(InputError, match="The valid data: text 4 has .*'data.truncate'"):
        prepared(trained, "prompts", root, data_truncate=False)
    for count in range(40, 4, -1):
        (root / "mails-valid.jsonl").write_text(json.dumps({"document": "one " * count, "summary": "one"}) + "\n")
        try:
            prepared(trained, "prompts", root, data_truncate=False)
        except InputError:
            continue
        break
    recipe = trained.recipe("prompts", data_truncate=False, training_steps=1)
    train(recipe, run=root / "run", data_root=root, display=Silent())


# --- Models to start from ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "base", "message"),
    [
        ("labels-lora", "documents", "classification wants an encoder; .*documents is a decoder: it goes on"),
        ("labels-lora", "summaries", "classification wants an encoder; .*summaries is an encoder-decoder"),
        ("questions-lora", "prompts", "question-answering wants an encoder; .*prompts is a decoder"),
        ("masked-fresh", "documents", "masked-language-modeling wants an encoder; .*documents is a decoder"),
        ("documents-lora", "masked", r"language-modeling wants a decoder; .*masked is an encoder that fills masks"),
        ("documents-lora", "labels", r"language-modeling wants a decoder; .*labels is an encoder .* its labels"),
        ("summaries-lora", "questions", r"wants an encoder-decoder or a decoder; .* is an encoder that finds answers"),
    ],
)
def test_a_base_of_another_family_is_refused_with_what_it_is(
    trained: Trained, tmp_path: Path, name: str, base: str, message: str
) -> None:
    recipe = trained.recipe(name, finetune_model=str(trained(base)))
    with pytest.raises(InputError, match=message):
        train(recipe, run=tmp_path / "run", data_root=trained.data, display=Silent())
    assert not (tmp_path / "run").exists()


def test_fresh_networks_of_another_family_are_refused(trained: Trained, tmp_path: Path) -> None:
    for name, model, message in (
        ("labels", {"model_n_encoder_layers": 0, "model_n_decoder_layers": 1}, "wants an encoder; .* a decoder"),
        ("characters", {"model_n_encoder_layers": 1}, r"wants a decoder; \[model\] describes an encoder-decoder"),
    ):
        with pytest.raises(InputError, match=message):
            trained.train(name, tmp_path / "run", **model)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"finetune_model": "all-minilm"}, "No model 'all-minilm': .*Did you mean 'all-minilm-l6-v2'"),
        ({"model_dropout": "high"}, r"\[model\].*'dropout' must be float, got 'high'"),
        ({"model_dropout": 1.5}, r"'dropout' must be in \[0, 1\), got 1.5"),
        ({"model_d_model": 32}, "'d_model' comes from .*masked, which the training starts from"),
        ({"finetune_lora_layers": ["gate"]}, "no dense layer 'gate'"),
        ({"finetune_freeze": ["blocks[7]"]}, "There are no such layers"),
    ],
)
def test_what_does_not_fit_the_base_makes_no_run(
    trained: Trained, tmp_path: Path, overrides: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        trained.train("labels-lora", tmp_path / "run", **overrides)
    assert not (tmp_path / "run").exists()


def test_a_vocabulary_larger_than_the_embedding_is_refused(trained: Trained) -> None:
    recipe = trained.recipe("documents-lora")
    start = open_start(recipe.finetune)
    assert start is not None
    larger = Tokenizer.train(["".join(map(chr, range(65, 165)))], "character", 200, 1)
    assert larger.vocab_size > start.held.config.vocab_size
    with pytest.raises(InputError, match=f"has {larger.vocab_size} tokens, more than the 52 of the embedding"):
        build(recipe, larger, start, (type(start.held.network),))


@pytest.mark.parametrize(("base", "same"), [("labels", True), ("questions", False)])
def test_a_head_goes_on_where_it_means_the_same(trained: Trained, base: str, same: bool) -> None:
    """The spans' head has the shape of one for two labels, and has learnt something else."""
    recipe = trained.recipe("labels-head", finetune_model=str(trained(base)), finetune_head_rate=3.0)
    start = open_start(recipe.finetune)
    found = prepared(trained, "labels-head", finetune_model=str(trained(base)))
    assert start is not None
    torch.manual_seed(0)
    built = build(recipe, found.tokenizer, start, (type(start.held.network),), found.head, found.derived)
    tensors, before = built.network.state_dict(), start.held.network.state_dict()
    assert torch.equal(tensors["head.labels.weight"], before["head.labels.weight"]) == same
    assert built.factors["head.labels.weight"] == (1.0 if same else 3.0)
    assert torch.equal(tensors["stack.blocks.0.norm_1.weight"], before["stack.blocks.0.norm_1.weight"])
    named = dataclasses.replace(found.head, labels=("x", "y"))  # type: ignore[type-var]
    other = build(recipe, found.tokenizer, start, (type(start.held.network),), named, found.derived)
    assert not torch.equal(other.network.state_dict()["head.labels.weight"], before["head.labels.weight"])


def test_a_start_whose_weights_changed_is_not_resumed(trained: Trained, tmp_path: Path) -> None:
    base = Path(shutil.copytree(trained("masked"), tmp_path / "base"))
    recipe = trained.recipe("labels-head", finetune_model=str(base), training_steps=2)
    train(recipe, run=tmp_path / "run", data_root=trained.data, display=Silent())
    shutil.rmtree(base)
    trained.train("masked", base, training_seed=9)
    with pytest.raises(InputError, match="was begun from '.*base', whose weights are others now"):
        resume(tmp_path / "run", data_root=trained.data, display=Silent())


# --- Nothing to learn -------------------------------------------------------------------------------------------------


def test_batches_of_padding_alone_are_an_error(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step: Callable[..., None] = Trainer._step

    class Padding:
        """A cursor whose second batch holds nothing to predict."""

        def __init__(self, cursor: Any, number: int) -> None:
            self.cursor, self.number = cursor, number

        def __next__(self) -> TextBatch:
            batch: TextBatch = next(self.cursor)
            nothing = torch.full_like(batch.target, IGNORE)
            return batch if self.number < 3 else dataclasses.replace(batch, target=nothing, full=False)

    monkeypatch.setattr(Trainer, "_step", lambda self, cursor: step(self, Padding(cursor, self.progress.step + 1)))
    with pytest.raises(InputError, match="The batches of step 3 hold nothing to predict: all of it is padding"):
        trained.train("characters", tmp_path / "run")
    monkeypatch.undo()
    assert list(Run.open(tmp_path / "run").checkpoints()) == [2]
    resume(tmp_path / "run", data_root=trained.data, display=Silent())
    assert experiment.Run.open(tmp_path / "run").metrics()[-1]["final"]


# --- People -----------------------------------------------------------------------------------------------------------


def test_documents_about_people_are_made_of_one_file(tmp_path: Path) -> None:
    rows = "".join(f"Ann Bee{i}\t{('chess', 'golf')[i % 2]}\n" for i in range(40))
    (tmp_path / "people.tsv").write_text(f"name\tsport\n{rows}")
    data = Data(kind="people", train="people.tsv", people=30, variants=2, people_seed=3)
    people = people_of(data, tmp_path)
    assert people == read_people(tmp_path / "people.tsv", 30, 3)
    for split in ("train", "valid", "test"):
        assert split_documents(data, split, tmp_path) == people_documents(people, split, 2, 3)
    with pytest.raises(InputError, match="no train data"):
        split_documents(Data(kind="people"), "valid", tmp_path)


def test_a_corpus_made_for_other_tasks_is_refused() -> None:
    Recipe(task="masked-language-modeling", data=Data(kind="people"))
    with pytest.raises(InputError, match="is for language-modeling and masked-language-modeling, this recipe is for"):
        Recipe(task="translation", data=Data(kind="people"))
    with pytest.raises(InputError, match="is for translation, this recipe is for language-modeling"):
        Recipe(task="language-modeling", data=Data(kind="dates"))


def test_the_control_of_the_athletes_differs_in_its_wordings_alone() -> None:
    recipes = [read_recipe(f"recipes/{name}.toml") for name in ("athletes-gpt", "athletes-gpt-single")]
    assert [recipe.data.variants for recipe in recipes] == [24, 1]
    same = [dataclasses.replace(one, name="", data=dataclasses.replace(one.data, variants=1)) for one in recipes]
    assert same[0] == same[1]
