"""Small checkpoints of low-rank layers: what they hold, what they need, what becomes of them elsewhere."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from parity.oracles import check_equal, transformers
from tiny_runs import metrics
from tiny_tasks import TUNED, Trained, prepared
from torch import Tensor

import glassformer as gf
from glassformer.checkpoints import native
from glassformer.checkpoints.adapters import Adapter, weights_hash
from glassformer.checkpoints.native import INDEX, TOKENIZER, WEIGHTS, read_index
from glassformer.checkpoints.opening import open_model
from glassformer.checkpoints.tensors import network_tensors, read_tensors
from glassformer.errors import InputError
from glassformer.layers.low_rank import LowRankLinear, has_low_rank
from glassformer.models.encoder_decoder import EncoderDecoder
from glassformer.training.averaging import average
from glassformer.training.display import Silent
from glassformer.training.experiment import as_it_is, train
from glassformer.training.jobs import job_of
from glassformer.training.runs import Run
from glassformer.training.validation import held_out_loss

LORA = [name for name, (_, _, finetune) in TUNED.items() if "lora" in finetune]
IDS = torch.tensor([[7, 9, 20, 33, 11, 12], [8, 30, 31, 7, 7, 9]])


@torch.no_grad()
def logits(network: Any) -> Tensor:
    given = (IDS, IDS[:, :4]) if isinstance(network, EncoderDecoder) else (IDS,)
    found: Tensor = network.eval()(*given).logits
    return found


# --- What they hold ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LORA)
def test_merged_and_beside_their_layers_give_the_same_logits(trained: Trained, name: str) -> None:
    run = trained(name)
    merged, beside = open_model(run), open_model(run, merge=False)
    assert not has_low_rank(merged.network) and has_low_rank(beside.network)
    assert merged.adapter is None and beside.adapter is not None
    check_equal(logits(merged.network), logits(beside.network))
    base = open_model(trained(TUNED[name][0])).network
    assert any(
        not torch.equal(tensor, network_tensors(base)[key])
        for key, tensor in network_tensors(merged.network).items()
        if "blocks" in key
    )
    assert all(parameter.requires_grad for parameter in merged.network.parameters())
    assert open_model(run).tokenizer == open_model(trained(TUNED[name][0])).tokenizer


@pytest.mark.parametrize("name", LORA)
def test_a_small_checkpoint_holds_what_was_trained_and_no_more(trained: Trained, name: str) -> None:
    run = trained(name)
    base, index = trained(TUNED[name][0]), read_index(run)
    assert index.format == 3 and index.adapter is not None and list(index.files) == [WEIGHTS]
    assert (index.adapter.base, index.adapter.rank, index.adapter.alpha) == (str(base), 2, 4.0)
    assert index.adapter.weights == weights_hash(open_model(base).network)
    network = open_model(run, merge=False).network
    wanted = {key for key, parameter in network.named_parameters() if "lora_" in key or key.startswith("head.labels")}
    wanted |= {key for key in network.state_dict() if key.startswith("pooler.")}
    steps = Run.open(run).checkpoints()
    for folder in (run, *steps.values()):
        assert set(read_tensors(folder / WEIGHTS)) == wanted, folder
    moments = read_tensors(steps[8] / "training" / "optimizer.safetensors")
    assert {key.rpartition("/")[0] for key in moments} == wanted
    frozen = {key: tensor for key, tensor in network_tensors(network).items() if key not in wanted}
    for key, tensor in frozen.items():
        assert torch.equal(tensor, network_tensors(open_model(base).network)[key]), key


def test_they_are_small(trained: Trained) -> None:
    for name in LORA:
        numbers = sum(tensor.numel() for tensor in read_tensors(trained(name) / WEIGHTS).values())
        whole = sum(tensor.numel() for tensor in read_tensors(trained(TUNED[name][0]) / WEIGHTS).values())
        assert numbers < 0.35 * whole
        assert not (trained(name) / "checkpoints" / "step-8" / TOKENIZER).exists()


def test_half_precision_halves_them_again(trained: Trained, tmp_path: Path) -> None:
    run = trained("labels-lora")
    held = open_model(run, merge=False)
    half = native.save(
        tmp_path / "half",
        held.network,
        held.tokenizer,
        held.pipeline,
        held.task,
        dtype=torch.float16,
        adapter=held.adapter,
    )
    tensors = read_tensors(half / WEIGHTS)
    assert set(tensors) == set(read_tensors(run / WEIGHTS))
    assert all(tensor.dtype == torch.float16 for tensor in tensors.values())
    loaded = open_model(half).network
    assert all(parameter.dtype == torch.float32 for parameter in loaded.parameters())
    check_equal(logits(loaded), logits(held.network), 2e-3)


def test_saved_as_a_model_they_are_whole(trained: Trained, tmp_path: Path) -> None:
    model = gf.load(trained("questions-lora"))
    folder = model.save(tmp_path / "whole")
    assert read_index(folder).adapter is None and (folder / TOKENIZER).is_file()
    assert torch.equal(logits(gf.load(folder).network), logits(model.network))


def test_what_is_shown_in_between_leaves_the_network_alone(trained: Trained) -> None:
    held = open_model(trained("labels-lora"), merge=False)
    model = gf.Model(held.network, held.tokenizer, held.pipeline, held.task)
    before = logits(held.network)
    shown = as_it_is(model)
    assert not has_low_rank(shown.network) and has_low_rank(model.network)
    check_equal(logits(shown.network), before)
    assert torch.equal(logits(model.network), before)


# --- What they need ---------------------------------------------------------------------------------------------------


def moved(trained: Trained, folder: Path, name: str = "labels-lora") -> tuple[Path, Path]:
    """A run that was trained on a base that is ours alone; both."""
    base = Path(shutil.copytree(trained(TUNED[name][0]), folder / "base"))
    recipe = trained.recipe(name, finetune_model=str(base), training_steps=2)
    train(recipe, run=folder / "run", data_root=trained.data, display=Silent())
    return base, folder / "run"


def test_a_base_that_is_gone_is_named(trained: Trained, tmp_path: Path) -> None:
    base, run = moved(trained, tmp_path)
    shutil.rmtree(base)
    with pytest.raises(InputError, match=f"{run} adapts the model '{base}', which cannot be opened: No model"):
        gf.load(run)


def test_a_base_with_other_weights_is_used_with_a_warning(trained: Trained, tmp_path: Path) -> None:
    base, run = moved(trained, tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        before = logits(gf.load(run).network)
    shutil.rmtree(base)
    trained.train("masked", base, training_seed=5)
    with pytest.warns(UserWarning, match=f"{run} was trained on '{base}' with other weights than those found"):
        after = logits(gf.load(run).network)
    assert not torch.allclose(before, after)


def test_a_base_that_does_not_fit_is_refused(trained: Trained, tmp_path: Path) -> None:
    base, run = moved(trained, tmp_path)
    shutil.rmtree(base)
    trained.train("masked", base, model_d_ff=48)
    with pytest.raises(InputError, match=r"trained on '.*base', but the model .* does not fit: it has no 'stack.*up"):
        gf.load(run)


def test_without_an_opener_they_say_what_they_are(trained: Trained) -> None:
    with pytest.raises(InputError, match="is an adapter: it is loaded together with '.*masked', by glassformer.load"):
        native.load(trained("labels-lora"))


@pytest.mark.parametrize("name", [INDEX, WEIGHTS])
def test_a_changed_byte_is_refused(trained: Trained, tmp_path: Path, name: str) -> None:
    run = Path(shutil.copytree(trained("labels-lora"), tmp_path / "run"))
    content = bytearray((run / name).read_bytes())
    content[len(content) // 2] ^= 1
    (run / name).write_bytes(content)
    with pytest.raises(InputError, match=str(run / name)):
        gf.load(run)


def test_an_index_that_says_nonsense_is_refused(trained: Trained, tmp_path: Path) -> None:
    run = Path(shutil.copytree(trained("labels-lora"), tmp_path / "run"))
    content = json.loads((run / INDEX).read_text())
    del content["checksum"]
    for change, message in (
        ({"rank": 0}, "'rank' ≥ 1"),
        ({"rank": 3}, r"'stack.*lora_a' must have the shape \[3, 16\] by its config, got \[2, 16\]"),
        ({"layers": ["gate"]}, "no dense layer 'gate'"),
        ({"base": 3}, "'base' must be str"),
        ({"rnak": 3}, "unknown key 'rnak'"),
    ):
        (run / INDEX).write_text(json.dumps({**content, "adapter": {**content["adapter"], **change}}))
        with pytest.raises(InputError, match=message):
            gf.load(run)


def test_a_hash_is_of_the_weights_whatever_file_they_are_in(trained: Trained, tmp_path: Path) -> None:
    network = open_model(trained("masked")).network
    digest = weights_hash(network)
    assert digest == weights_hash(open_model(trained("masked")).network)
    gf.load(trained("masked")).save_pretrained(tmp_path / "hf")
    assert weights_hash(open_model(tmp_path / "hf").network) == digest
    with torch.no_grad():
        next(network.parameters()).view(-1)[3] += 1e-6
    assert weights_hash(network) != digest


# --- What becomes of them ---------------------------------------------------------------------------------------------


def test_with_the_same_low_rank_layers_an_adapter_is_trained_further(trained: Trained, tmp_path: Path) -> None:
    first = trained("labels-lora")
    run = trained.train("labels-lora", tmp_path / "further", finetune_model=str(first), finetune_lora_dropout=0.3)
    adapter, before = read_index(run).adapter, read_index(first).adapter
    assert adapter is not None and before is not None
    assert (adapter.base, adapter.weights) == (before.base, before.weights) and adapter.dropout == 0.3
    assert [line["valid_loss"] for line in metrics(run)[1:2]] != [line["valid_loss"] for line in metrics(first)[1:2]]
    start = open_model(first, merge=False).network
    further = open_model(run, merge=False).network
    shared = [key for key in read_tensors(run / WEIGHTS) if key in network_tensors(start)]
    assert all(network_tensors(start)[key].shape == network_tensors(further)[key].shape for key in shared)
    check_equal(logits(gf.load(run).network), logits(further))


def test_a_training_goes_on_from_the_adapters_own_weights(trained: Trained, tmp_path: Path) -> None:
    """A rate of nearly nothing leaves the model as it was."""
    first = trained("questions-lora")
    still = {"finetune_model": str(first), "training_learning_rate": 1e-12, "training_weight_decay": 0.0}
    for name, change in (("same", {}), ("other", {"finetune_lora": 3})):
        run = trained.train("questions-lora", tmp_path / name, **still, **change, evaluation_metric="loss")
        check_equal(logits(gf.load(run).network), logits(gf.load(first).network), 1e-4)


def test_with_other_low_rank_layers_an_adapter_becomes_a_base(trained: Trained, tmp_path: Path) -> None:
    first = trained("documents-lora")
    run = trained.train("documents-lora", tmp_path / "second", finetune_model=str(first), finetune_lora=3)
    adapter = read_index(run).adapter
    assert adapter == Adapter(str(first), weights_hash(open_model(first).network), 3, 4.0, adapter.layers, 0.1)  # type: ignore[union-attr]
    merged, beside = gf.load(run).network, open_model(run, merge=False).network
    check_equal(logits(merged), logits(beside))
    dense = [module for module in beside.modules() if isinstance(module, LowRankLinear)]
    assert all(module.lora_a.shape[0] == 3 for module in dense)


@pytest.mark.parametrize(
    ("name", "freeze"),
    [
        ("labels-lora", ["lora_a"]),
        ("labels-lora", ["head"]),
        ("questions-lora", ["blocks[0]", "head"]),
        ("documents-lora", ["blocks[0]"]),
    ],
)
def test_what_is_frozen_beside_them_is_kept(trained: Trained, tmp_path: Path, name: str, freeze: list[str]) -> None:
    """Fresh low-rank layers and heads that stay frozen, and those that an adapter before has trained."""
    for place, base in (("first", trained(TUNED[name][0])), ("further", trained(name))):
        run = trained.train(
            name, tmp_path / place, finetune_model=str(base), finetune_freeze=freeze, evaluation_metric="loss"
        )
        lines = [line for line in metrics(run) if "valid_loss" in line]
        found = trained_loss(trained, name, run)
        assert found == pytest.approx(lines[-1]["valid_loss"], abs=1e-5)


def trained_loss(trained: Trained, name: str, run: Path) -> float:
    """The held-out loss of a finished run, loaded from its folder."""
    recipe = trained.recipe(name)
    held = prepared(trained, name)
    network = gf.load(run).network
    objective = job_of(recipe.task).objective(recipe, network)
    return held_out_loss(network, objective, held.valid, "fp32")["valid_loss"]


@pytest.mark.parametrize("name", LORA)
def test_the_finished_model_has_the_loss_that_was_measured(trained: Trained, name: str) -> None:
    measured = metrics(trained(name))[-1]["valid_loss"]
    assert trained_loss(trained, name, trained(name)) == pytest.approx(measured, abs=1e-5)


def test_average_of_a_run(trained: Trained, tmp_path: Path) -> None:
    run = trained("labels-lora")
    folder = average(run, last=2, into=tmp_path / "mean")
    steps = list(Run.open(run).checkpoints().values())[-2:]
    parts = [read_tensors(step / WEIGHTS) for step in steps]
    mean = read_tensors(folder / WEIGHTS)
    assert set(mean) == set(parts[0])
    for key, tensor in mean.items():
        torch.testing.assert_close(tensor, (parts[0][key] + parts[1][key]) / 2)
    assert read_index(folder).adapter == read_index(run).adapter
    model = gf.load(folder)
    assert model.classify("one two").label in ("little", "much")
    check_equal(logits(model.network), logits(open_model(folder, merge=False).network))


def test_a_run_may_finish_as_an_average(trained: Trained, tmp_path: Path) -> None:
    run = trained.train("questions-lora", tmp_path / "run", evaluation_average=2)
    assert metrics(run)[-1]["checkpoints"] == [6, 8]
    mean = average(run, last=2, into=tmp_path / "mean")
    assert (run / WEIGHTS).read_bytes() == (mean / WEIGHTS).read_bytes()


# --- Elsewhere --------------------------------------------------------------------------------------------------------


@torch.no_grad()
def theirs(folder: Path, kind: str, *, segments: bool = True) -> Tensor:
    """The logits that a class of transformers gives for `IDS`, every tensor of it found in the folder."""
    model, report = getattr(transformers, kind).from_pretrained(folder, output_loading_info=True)
    assert not any(report.values()), report
    given = {"token_type_ids": torch.zeros_like(IDS)} if segments else {}
    out = model.eval()(IDS, attention_mask=torch.ones_like(IDS), **given)
    found: Tensor = torch.stack((out.start_logits, out.end_logits), -1) if hasattr(out, "end_logits") else out.logits
    return found


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("labels-lora", "BertForSequenceClassification"),
        ("labels-head", "BertForSequenceClassification"),
        ("questions-lora", "BertForQuestionAnswering"),
        ("questions-frozen", "BertForQuestionAnswering"),
        ("masked", "BertForMaskedLM"),
        ("documents-lora", "GPT2LMHeadModel"),
        ("prompts-lora", "GPT2LMHeadModel"),
    ],
)
def test_transformers_gives_the_same_logits(trained: Trained, tmp_path: Path, name: str, kind: str) -> None:
    model = gf.load(trained(name))
    folder = model.save_pretrained(tmp_path / "hf")
    ours = logits(model.network)
    check_equal(ours, theirs(folder, kind, segments=kind.startswith("Bert")))
    again = gf.load(folder)
    assert torch.equal(logits(again.network), ours)
    if name == "labels-lora":
        names = json.loads((folder / "config.json").read_text())["id2label"]
        assert list(names.values()) == ["little", "much"]
        assert again.classify("ten two") == model.classify("ten two")


def test_transformers_answers_with_segments(trained: Trained, tmp_path: Path) -> None:
    """What its tokenizer makes of a question and a context is what ours is trained with."""
    model = gf.load(trained("questions-lora"))
    folder = model.save_pretrained(tmp_path / "hf")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    network = transformers.BertForQuestionAnswering.from_pretrained(folder).eval()
    question, context = "where does ann live ?", "ann lives in rome , and eats rice ."
    given = tokenizer(question, context, return_tensors="pt")
    ids, segments = model.tokenizer.encode_pair(question, context)
    assert given["input_ids"].tolist() == [ids] and given["token_type_ids"].tolist() == [segments]
    with torch.no_grad():
        out = network(**given)
        ours = model.network(torch.tensor([ids]), torch.tensor([segments])).logits
    check_equal(ours, torch.stack((out.start_logits, out.end_logits), -1))


def test_a_summary_goes_the_same_way(trained: Trained, tmp_path: Path) -> None:
    model = gf.load(trained("summaries-lora"))
    folder = model.save(tmp_path / "whole")
    assert gf.load(folder).summarize("one two three").text == model.summarize("one two three").text
    with pytest.raises(InputError, match="no known architecture of Hugging Face holds this network"):
        model.save_pretrained(tmp_path / "hf")
