"""JoeyNMT's side of `translation_training.py`; runs in JoeyNMT's own environment.

Its own `prepare` reads the data and builds the model, its own iterator makes the batches, and a timed step is its
`TrainManager._train_step` followed by what its batch loop does after that: optimizer, scheduler, zeroed gradients and
counters. Reading, tokenising and collating are not timed, to its advantage; neither are logging and validation.
"""

from __future__ import annotations

import copy
import itertools
import math
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy
import torch
import yaml
from conversation import serve
from joeynmt.config import parse_global_args
from joeynmt.prediction import prepare
from joeynmt.training import TrainManager

RUN = tempfile.TemporaryDirectory(prefix="joeynmt-")
STATE: dict[str, Any] = {}


def start(data: str, batches: int, threads: int, output: str) -> dict[str, Any]:
    """Build model and trainer, take the first batches of its shuffled epoch and write their ids to `output` (.npz)."""
    torch.set_num_threads(threads)
    text = Path(__file__).with_name("joeynmt.yaml").read_text().replace("{data}", data).replace("{run}", RUN.name)
    arguments = parse_global_args(yaml.safe_load(text), rank=0, mode="train")
    model, train_data, _, _ = prepare(arguments, rank=0, mode="train")
    manager = TrainManager(
        model=model,
        model_dir=arguments.model_dir,
        device=arguments.device,
        n_gpu=arguments.n_gpu,
        rank=0,
        num_workers=arguments.num_workers,
        autocast=arguments.autocast,
        seed=arguments.seed,
        train_args=arguments.train,
        dev_args=arguments.test,
    )
    kept, seconds_reading = first_batches(manager, train_data, batches)
    STATE.update(manager=manager, batches=kept)
    write_ids(kept, output)
    return describe(manager, kept, threads) | {"seconds_reading_a_batch": seconds_reading}


def first_batches(manager: TrainManager, data: Any, count: int) -> tuple[list[Any], float]:
    """The first batches of epoch 1 as `train_and_validate` would see them, and the seconds each took to make."""
    options = manager.args
    iterator = data.make_iter(
        batch_size=options.batch_size,
        batch_type=options.batch_type,
        seed=manager.seed,
        shuffle=options.shuffle,
        num_workers=manager.num_workers,
        device=manager.device,
        eos_index=manager.model.eos_index,
        pad_index=manager.model.pad_index,
    )
    data.seed = manager.seed + 1
    iterator.batch_sampler.set_seed(manager.seed + 1)
    begin = time.perf_counter()
    batches = list(itertools.islice(iterator, count))
    return batches, (time.perf_counter() - begin) / len(batches)


def write_ids(batches: list[Any], output: str) -> None:
    """Source ids and target ids (bos … eos) of every batch, padded as they are."""
    arrays = {}
    for number, batch in enumerate(batches):
        arrays[f"source_{number}"] = batch.src.numpy()
        arrays[f"target_{number}"] = torch.cat((batch.trg_input[:, :1], batch.trg), dim=1).numpy()
    numpy.savez(output, **arrays)


def describe(manager: TrainManager, batches: list[Any], threads: int) -> dict[str, Any]:
    """What our side must match: ids, sizes, norm placement, and the batches' padding."""
    model = manager.model
    real = [int((batch.trg != model.pad_index).sum()) for batch in batches]
    source_real = [int((batch.src != model.pad_index).sum()) for batch in batches]
    return {
        "python": sys.version.split()[0],
        "torch": torch.__version__,
        "threads": threads,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "source_vocab_size": len(model.src_vocab),
        "vocab_size": len(model.trg_vocab),
        "pad_id": model.pad_index,
        "bos_id": model.bos_index,
        "eos_id": model.eos_index,
        "d_model": model.encoder._output_size,
        "n_heads": model.encoder.layers[0].src_src_att.num_heads,
        "d_ff": model.encoder.layers[0].feed_forward.pwff_layer[0].out_features,
        "n_encoder_layers": len(model.encoder.layers),
        "n_decoder_layers": len(model.decoder.layers),
        "dropout": model.encoder.layers[0].dropout.p,
        "label_smoothing": model.loss_function.smoothing,
        "encoder_norm": model.encoder.layers[0]._layer_norm_position,
        "decoder_norm": model.decoder.layers[0]._layer_norm_position,
        "final_norms": [model.encoder.layer_norm is not None, model.decoder.layer_norm is not None],
        "clips": manager.clip_grad_fun is not None,
        "rows": [batch.nseqs for batch in batches],
        "target_tokens": real,
        "target_padding": 1 - sum(real) / sum(batch.trg.numel() for batch in batches),
        "source_padding": 1 - sum(source_real) / sum(batch.src.numel() for batch in batches),
    }


def train() -> dict[str, Any]:
    """One step on each batch. Batches are copied first: a step sorts its batch in place."""
    manager: TrainManager = STATE["manager"]
    batches = [copy.copy(batch) for batch in STATE["batches"]]
    losses = []
    begin = time.perf_counter()
    for batch in batches:
        losses.append(step(manager, batch))
    seconds = time.perf_counter() - begin
    return {"seconds": seconds, "loss": sum(losses) / len(losses) + smoothed_entropy(manager)}


def step(manager: TrainManager, batch: Any) -> float:
    """The body of the batch loop in `TrainManager.train_and_validate`, for one device and no accumulation."""
    loss, correct = manager._train_step(batch)
    manager.stats.total_tokens += batch.ntokens
    manager.stats.total_correct += correct
    if manager.clip_grad_fun is not None:
        manager.clip_grad_fun(parameters=manager.model.parameters())
    manager.optimizer.step()
    if manager.scheduler_step_at == "step":
        manager.scheduler.step(manager.stats.steps)
    manager.model.zero_grad()
    manager.stats.steps += 1
    return loss


def smoothed_entropy(manager: TrainManager) -> float:
    """Nats a token by which its loss, a KL divergence, lies below the cross-entropy that we report."""
    smoothing, size = manager.model.loss_function.smoothing, len(manager.model.trg_vocab)
    other = smoothing / (size - 2)
    return -(1 - smoothing) * math.log(1 - smoothing) - (size - 2) * other * math.log(other)


if __name__ == "__main__":
    serve({"start": start, "train": train})
