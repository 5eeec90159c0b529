"""What several processes have in parts is written and read in parts, by any number of them, and by everything else."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from processes import run_inside
from test_drawing import built, config_of
from test_parallel import EVEN, assert_like, reported, run_jobs
from tiny_runs import metrics
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor
from torch.distributed.tensor._redistribute import _gen_transform_infos
from torch.distributed.tensor.debug import _clear_sharding_prop_cache
from torch.testing._internal.distributed.fake_pg import FakeStore

from glassformer.checkpoints.files import sha256
from glassformer.checkpoints.native import load, read_weights
from glassformer.checkpoints.shards import INFO, consolidate, mean_of, open_shards
from glassformer.checkpoints.tensors import network_tensors, open_tensors, read_tensors, write_tensors
from glassformer.errors import InputError
from glassformer.training.parallel.checkpoints import read_shards, verify_in_turns, write_shards
from glassformer.training.parallel.drawing import fill, unfilled
from glassformer.training.parallel.sharded import sharded
from glassformer.training.ranks import ALONE, Ranks

SHORT = {**EVEN, "training.steps": 6, "training.evaluate_every": 6, "training.checkpoint_every": 3}


@contextmanager
def group(backend: str, rank: int = 0, size: int = 1) -> Iterator[None]:
    """A group of processes: of one that is real, or of as many as wanted that never answer, in the place of any.

    torch remembers what this process's shares look like, as it never changes its rank otherwise.
    """
    _clear_sharding_prop_cache()
    _gen_transform_infos.cache_clear()
    store = FakeStore() if backend == "fake" else dist.HashStore()
    dist.init_process_group(backend, store=store, rank=rank, world_size=size)
    try:
        yield
    finally:
        dist.destroy_process_group()


def tensors() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(2)
    return {
        "matrix": torch.randn(7, 4, generator=generator),
        "vector": torch.randn(3, generator=generator),
        "row": torch.randn(1, 5, generator=generator),
        "step": torch.tensor(17.0),
        "ids": torch.arange(6).reshape(2, 3),
    }


def cut(folder: Path) -> list[Path]:
    """The tensors in two files: the matrix in quarters, the vector by rows, all else in one of them."""
    folder.mkdir()
    whole = tensors()
    first = {"matrix": (whole["matrix"][:4, :3], [0, 0]), "vector": (whole["vector"][:2], [0])}
    second = {"matrix": (whole["matrix"][4:, :3], [4, 0]), "vector": (whole["vector"][2:], [2])}
    third = {"matrix": (whole["matrix"][:4, 3:], [0, 3]), "row": (whole["row"], [0, 0]), "step": (whole["step"], [])}
    fourth = {"matrix": (whole["matrix"][4:, 3:], [4, 3]), "ids": (whole["ids"], [0, 0])}
    paths = []
    for number, part in enumerate((first, second, third, fourth)):
        info = {name: {"saved_offsets": start} for name, (_, start) in part.items()}
        path = folder / f"shard-{number + 1:05}-model-00001-of-00001.safetensors"
        write_tensors(path, {name: piece for name, (piece, _) in part.items()}, {INFO: json.dumps(info)})
        paths.append(path)
    return paths


# --- files, without processes -----------------------------------------------------------------------------------------


def test_pieces_become_tensors_again(tmp_path: Path) -> None:
    """Counters without a dimension and whole numbers too."""
    paths = cut(tmp_path / "shards")
    digest = consolidate(paths, tmp_path / "one.safetensors")
    found = read_tensors(tmp_path / "one.safetensors")
    assert digest == sha256(tmp_path / "one.safetensors") and found.keys() == tensors().keys()
    for name, tensor in tensors().items():
        assert found[name].dtype == tensor.dtype and torch.equal(found[name], tensor), name


def test_a_missing_file_of_shards_is_noticed(tmp_path: Path) -> None:
    paths = cut(tmp_path / "shards")
    with pytest.raises(InputError, match="'matrix' has 19 of 28 numbers: a file of shards is missing"):
        open_shards([paths[0], *paths[2:]])


def test_means_are_those_of_the_tensors(tmp_path: Path) -> None:
    paths = cut(tmp_path / "shards")
    write_tensors(tmp_path / "b.safetensors", {name: 3 * tensor for name, tensor in tensors().items()})
    means = mean_of([open_shards(paths), open_tensors(tmp_path / "b.safetensors")])
    for name, tensor in tensors().items():
        wanted = 3 * tensor if name == "ids" else (2.0 * tensor.double()).float()
        assert torch.equal(means[name].dense(), wanted) and means[name].dtype == tensor.dtype


def test_a_process_reads_what_it_needs(tmp_path: Path) -> None:
    """Into plain tensors and into shares, from shards and from one file; what is missing or differs is named."""
    cut(tmp_path / "shards")
    (tmp_path / "one").mkdir()
    write_tensors(tmp_path / "one" / "model.safetensors", tensors())
    for folder in (tmp_path / "shards", tmp_path / "one"):
        stored = open_shards(sorted(folder.iterdir()))
        wanted = {name: torch.zeros_like(tensor) for name, tensor in tensors().items()}
        read_shards(folder, stored, wanted)
        assert all(torch.equal(wanted[name], tensor) for name, tensor in tensors().items())
        for rank in range(3):
            with group("fake", rank, 3):
                mesh = init_device_mesh("cpu", (3,))
                part = distribute_tensor(torch.zeros(7, 4), mesh, [Shard(0)], src_data_rank=None)
                read_shards(folder, stored, {"matrix": part})
                own = tensors()["matrix"].chunk(3)[rank]
                assert torch.equal(part.to_local(), own)
        with pytest.raises(InputError, match="the tensor 'other' is missing"):
            read_shards(folder, stored, {"other": torch.zeros(3)})
        with pytest.raises(InputError, match=r"'vector' must have the shape \[4\] by the network's config, got \[3\]"):
            read_shards(folder, stored, {"vector": torch.zeros(4)})


def test_a_file_that_changed_is_noticed_by_the_process_whose_turn_it_is(tmp_path: Path) -> None:
    paths = cut(tmp_path / "shards")
    files = [(path, sha256(path)) for path in paths]
    verify_in_turns(files, ALONE)
    paths[1].write_bytes(paths[1].read_bytes()[:-1] + b"!")
    with pytest.raises(InputError, match="shard-00002-model-00001-of-00001.safetensors is missing, cut short or chang"):
        verify_in_turns(files, ALONE)


def test_a_group_of_one_writes_what_is_read(tmp_path: Path) -> None:
    with group("gloo"):
        mesh = init_device_mesh("cpu", (1,))
        held = {name: distribute_tensor(x, mesh, [Shard(0)]) if x.ndim else x for name, x in tensors().items()}
        digests = write_shards(tmp_path / "shards", held, Ranks())
        with pytest.raises(OSError, match="process 0: "):
            write_shards(Path("/proc/nowhere"), held, Ranks())
    assert digests == {path.name: sha256(path) for path in (tmp_path / "shards").iterdir()} and len(digests) == 1
    found = {name: x.dense() for name, x in open_shards(sorted((tmp_path / "shards").iterdir())).items()}
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors().items())


@pytest.mark.parametrize("layout", [{"shard": 4}, {"data": 2, "shard": 2}, {"tensor": 2, "shard": 2}])
def test_shares_are_those_of_the_network_of_one_process(layout: dict[str, int]) -> None:
    """Of a network that was never whole anywhere: each process has its share of memory and of the same numbers."""
    config = config_of("gpt2")
    plain = network_tensors(built(config, seed=4))
    sizes = {name: layout.get(name, 1) for name in ("pipeline", "data", "shard", "context", "tensor")}
    held = []
    for rank in (0, 3):
        with group("fake", rank, 4):
            with unfilled() as draws:
                network = built(config, seed=4)
            draws.names(network)
            mesh = init_device_mesh("cpu", tuple(sizes.values()), mesh_dim_names=tuple(sizes))
            learner = sharded(network, lambda network, batch: batch, mesh)
            fill(learner.network, draws, torch.device("cpu"))
            assert learner.divided and all(parameter.is_meta for parameter in learner.whole.parameters())
            assert dict(learner.network.named_parameters()).keys() == dict(learner.whole.named_parameters()).keys()
            held.append(0)
            for name, parameter in learner.network.named_parameters():
                own: Any = parameter
                wanted = distribute_tensor(plain[name], own.device_mesh, own.placements, src_data_rank=None)
                assert torch.equal(own.to_local(), wanted.to_local()), name
                held[-1] += own.to_local().numel()
    assert max(held) < 1.4 * layout.get("data", 1) / 4 * sum(tensor.numel() for tensor in plain.values())


# --- several processes ------------------------------------------------------------------------------------------------


@pytest.mark.multiprocess
def test_a_sharded_run_is_read_by_everything(tmp_path: Path) -> None:
    """Its checkpoints by `load`, its end by `export`, and transformers says the same."""
    transformers = pytest.importorskip("transformers")
    jobs = [
        {"task": "characters", "run": "one", "processes": 1, "overrides": SHORT},
        {"task": "characters", "run": "two", "processes": 2, "overrides": {**SHORT, "parallel.shard": 2}},
    ]
    statuses, said = run_jobs(tmp_path, jobs, timeout=300)
    assert statuses == [[0], [0, 0]], said
    assert_like(tmp_path / "one", tmp_path / "two")
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in ("checkpoints/step-3", "checkpoints/step-6", "."):
        wanted, found = read_weights(one / folder), read_weights(two / folder)
        assert wanted.keys() == found.keys()
        assert all(torch.allclose(wanted[name], found[name], atol=1e-4) for name in wanted)
        load(two / folder)
    assert len(list((two / "checkpoints" / "step-6" / "shards").iterdir())) == 2
    assert not list((two / "checkpoints").glob(".*"))
    assert run_inside("export", two, tmp_path / "hf", "--format", "hf").code == 0
    theirs = transformers.GPT2LMHeadModel.from_pretrained(tmp_path / "hf").eval()
    ids = torch.arange(5)[None]
    with torch.no_grad():
        assert torch.allclose(theirs(ids).logits, load(two).network(ids).logits, atol=1e-4)
    shard = next((two / "checkpoints" / "step-6" / "shards").iterdir())
    shard.write_bytes(shard.read_bytes()[:-1] + b"!")
    with pytest.raises(InputError, match=f"{shard.name} is cut short or changed"):
        load(two / "checkpoints" / "step-6")


@pytest.mark.multiprocess
def test_a_full_disk_of_one_process_ends_all_with_a_sentence(tmp_path: Path) -> None:
    two = {"task": "characters", "processes": 2, "overrides": {**SHORT, "parallel.shard": 2}}
    statuses, said = run_jobs(tmp_path, [{**two, "run": "full", "full": 4000}], timeout=300)
    assert statuses == [[1, 1]]
    assert "the checkpoint of step 3 cannot be written (process 1: File too large)" in said
    assert "Make room, then go on with: glassformer train --resume" in said and "Traceback" not in said
    assert not list((tmp_path / "full" / "checkpoints").iterdir())
    statuses, said = run_jobs(tmp_path, [{**two, "run": "full", "resume": True, "overrides": {}}], timeout=300)
    assert statuses == [[0, 0]], said
    assert [line["step"] for line in metrics(tmp_path / "full") if "loss" in line] == [1, 2, 3, 4, 5, 6]


@pytest.mark.multiprocess
def test_a_checkpoint_of_another_architecture_ends_all_with_a_sentence(tmp_path: Path) -> None:
    begun = {"task": "characters", "processes": 1}
    half = {**SHORT, "training.steps": 3}
    jobs = [{**begun, "run": "narrow", "overrides": half}]
    jobs += [{**begun, "run": "wide", "overrides": {**half, "model.d_ff": 40}}]
    statuses, said = run_jobs(tmp_path, jobs, timeout=300)
    assert statuses == [[0], [0]], said
    layouts = ["data", "shard", "pipeline"]
    for layout in layouts:
        shutil.copytree(tmp_path / "narrow", tmp_path / layout)
        shutil.rmtree(tmp_path / layout / "checkpoints" / "step-3")
        shutil.copytree(tmp_path / "wide" / "checkpoints" / "step-3", tmp_path / layout / "checkpoints" / "step-3")
    more = {"task": "characters", "processes": 2, "resume": True}
    jobs = [{**more, "run": x, "overrides": {f"parallel.{x}": 2, "training.steps": 6}} for x in layouts]
    statuses, said = run_jobs(tmp_path, jobs, timeout=300)
    assert statuses == [[1, 1]] * 3 and "Traceback" not in said
    for layout in layouts:
        told = reported(said, layout)
        assert "must have the shape" in told and "Remove" in told, told


@pytest.mark.slow
@pytest.mark.multiprocess
@pytest.mark.parametrize("begun", [{}, {"parallel.shard": 2}, {"parallel.tensor": 2}, {"parallel.data": 2}])
def test_a_run_goes_on_in_any_layout(tmp_path: Path, begun: dict[str, int]) -> None:
    """Killed at step 14, gone on with in layouts of 1, 2 and 4 processes: the losses of one that was never killed."""
    size = max([1, *begun.values()])
    same = {**EVEN, "training.steps": 24, "training.evaluate_every": 12, "training.checkpoint_every": 5}
    same |= {"training.accumulate": 2}
    whole = {"task": "characters", "run": "one", "processes": 1, "overrides": same}
    killed = {"task": "characters", "run": "begun", "processes": size, "overrides": {**same, **begun}, "kill": 14}
    run_jobs(tmp_path, [whole, killed])
    layouts = [{}, {"parallel.shard": 2}, {"parallel.tensor": 2}, {"parallel.data": 2, "parallel.shard": 2}]
    jobs = []
    for number, layout in enumerate(layouts):
        shutil.copytree(tmp_path / "begun", tmp_path / str(number))
        wanted = {"parallel.data": 1, "parallel.shard": 1, "parallel.tensor": 1, **layout}
        processes = 2 ** len(layout)
        jobs.append({"task": "x", "run": str(number), "processes": processes, "resume": True, "overrides": wanted})
    statuses, said = run_jobs(tmp_path, jobs)
    assert not any(map(any, statuses)), said
    for number in range(len(layouts)):
        assert_like(tmp_path / "one", tmp_path / str(number))


@pytest.mark.slow
@pytest.mark.multiprocess
@pytest.mark.parametrize("task", ["summaries", "refusals", "labels"])
def test_metrics_of_the_whole_model_gather_it(tmp_path: Path, task: str) -> None:
    """ROUGE, answers with a threshold that is settled at the end, F1, and samples on the way."""
    same = {**SHORT, "training.optimizer": "adamw", "training.samples": 1}
    jobs = [
        {"task": task, "run": "one", "processes": 1, "overrides": same},
        {"task": task, "run": "two", "processes": 2, "overrides": {**same, "parallel.shard": 2}},
    ]
    statuses, said = run_jobs(tmp_path, jobs)
    assert not any(map(any, statuses)), said
    assert_like(tmp_path / "one", tmp_path / "two")
    one, two = (load(tmp_path / name).config for name in ("one", "two"))
    assert type(one) is type(two) and str(one)[:60] == str(two)[:60]
