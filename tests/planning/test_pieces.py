"""What is counted without computing, against hand-made sums, torch's own counters and real steps."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rss_of_step import gpt, product_flops
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

import glassformer as gf
from glassformer.layers.cross_entropy import rows_at_once
from glassformer.models import assembly
from glassformer.models.config import Banded, Dense
from glassformer.models.counting import count
from glassformer.planning.layouts import Layout, Schedule
from glassformer.planning.memory import memory
from glassformer.planning.pieces import fake_world, run_block, run_embedding, run_head
from glassformer.planning.watch import Watch
from glassformer.planning.work import Work
from glassformer.tasks.objectives import causal_lm
from glassformer.text.examples import TextBatch

TINY = replace(gpt(layers=3, width=128, vocabulary=500, length=128), attention=Dense())
ALONE = Layout()


def planned_flops(config: gf.Config, rows: int, length: int) -> int:
    work, schedule = Work(config, length, "fp32"), Schedule(rows, 1, False)
    block, ends = work.block(ALONE, schedule), work.ends(ALONE, schedule)
    pieces = [(block, config.n_decoder_layers), *((end, 1) for end in ends)]
    return sum(n * o.flops for piece, n in pieces for o in (*piece.forward, *piece.backward))


@pytest.mark.parametrize("band", [None, 16])
def test_flops_are_those_of_a_real_step(band: int | None) -> None:
    config = replace(TINY, attention=Dense() if band is None else Banded(band, 1))
    rows, length = 2, 64  # so short that attention is plain products, all of which torch counts
    ids = torch.randint(0, 500, (rows, length))
    network = gf.Decoder(config).train()
    with FlopCounterMode(display=False, custom_mapping={torch.ops.aten.addmm_: product_flops}) as counter:
        causal_lm(network, TextBatch(ids, ids)).mean.backward()
    assert planned_flops(config, rows, length) == counter.get_total_flops()
    if band is None:
        assert counter.get_total_flops() == rows * length * count(config).flops(length)["token"].training


def test_fused_attention_is_counted_as_other_attention() -> None:
    """Its backward pass computes the scores once more, half as much again as its two products forward."""
    found = planned_flops(TINY, 2, 128)
    flops = count(TINY).flops(128)["token"]
    assert found == 2 * 128 * (flops.training + flops.attention // 2)


def test_a_block_keeps_what_its_backward_pass_reads() -> None:
    """fp32, N tokens: two norms with mean and deviation each, queries, keys, values, what attention gives with a
    number for each head, the two sums of the stream, and the feed-forward before and after its activation."""
    rows, length = 2, 128
    tokens, width = rows * length, 128
    run = run_block(TINY, length, rows, 1, "fp32")
    vectors = 2 + 3 + 1 + 2
    assert run.kept == 4 * (tokens * width * vectors + 2 * tokens * 4 * width + 4 * tokens + 2 * tokens)
    assert run.cast == 0
    assert run.parameters == 12 * width**2 + 13 * width


def test_autocast_keeps_its_copies_of_matrices() -> None:
    run = run_block(TINY, 128, 1, 1, "bf16")
    assert run.cast == 2 * 12 * 128**2  # norms stay fp32, biases are not needed again


def test_the_pieces_make_the_whole() -> None:
    config = gf.sizes["gpt3-175b"]
    work = Work(config, 64, "bf16")  # rows of 64 tokens, for speed
    schedule = Schedule(1, 1, False)
    block, (embedding, head) = work.block(ALONE, schedule), work.ends(ALONE, schedule)
    tied = config.vocab_size * config.d_model
    assert embedding.parameters + 96 * block.parameters + head.parameters - tied == 174_604_259_328


def test_training_on_300_billion_tokens_takes_the_published_flops() -> None:
    """Brown et al. 2020, table D.1: 3.14e23 for GPT-3 175B, which is 6 N D."""
    config = gf.sizes["gpt3-175b"]
    weights = count(config).flops(1)["token"].weights
    assert 3 * weights * 300e9 == pytest.approx(3.14e23, rel=0.01)
    assert 6 * count(config).total * 300e9 == pytest.approx(3.14e23, rel=0.01)


def test_a_long_head_is_a_short_one_many_times() -> None:
    config = replace(TINY, vocab_size=320_000)  # visited 26 tokens at a time
    few = 4 * rows_at_once(config.vocab_size, "cpu")
    long, direct = run_head(config, 4 * few, "fp32"), run_head(config, 2 * few, "fp32")
    assert sum(o.flops for o in long.forward) == 2 * sum(o.flops for o in direct.forward)
    with FakeTensorMode(allow_non_fake_inputs=True):
        from glassformer.planning import pieces

        whole = pieces._short_head.__wrapped__(config, 4 * few, "fp32", few // 4)
    assert (long.kept, long.forward_peak, long.backward_peak) == (whole.kept, whole.forward_peak, whole.backward_peak)


def test_a_head_on_a_gpu_visits_more_tokens_at_a_time() -> None:
    """The gradient of its weights is read and written once for each chunk, and so less often."""
    config = replace(TINY, vocab_size=320_000)
    here, there = (run_head(config, 2048, "fp32", device) for device in ("cpu", "cuda"))
    assert sum(o.flops for o in here.forward) == sum(o.flops for o in there.forward)
    assert sum(o.moved for o in there.forward) < 0.8 * sum(o.moved for o in here.forward)
    assert there.forward_peak > here.forward_peak


def test_an_embedding_gives_a_dense_gradient() -> None:
    run = run_embedding(TINY, 128, 2, "fp32")
    assert run.parameters == (500 + 128) * 128
    assert run.backward_peak >= 4 * run.parameters > run.kept


def test_a_tensor_rank_has_its_share_and_sums_with_the_others() -> None:
    alone, shared = (run_block(TINY, 128, 2, tensor, "fp32") for tensor in (1, 2))
    assert sum(o.flops for o in shared.forward) * 2 == sum(o.flops for o in alone.forward)
    assert sum(o.flops for o in shared.backward) * 2 == sum(o.flops for o in alone.backward)
    stream = 4 * 2 * 128 * 128
    for collective in (*shared.collectives_forward, *shared.collectives_backward):
        assert (collective.kind, collective.bytes) == ("all-reduce", stream)
    assert len(shared.collectives_forward) == 2  # after attention and after the feed-forward
    assert len(shared.collectives_backward) == 4  # what queries, keys, values and the feed-forward read
    whole = 128 * 4 + 128 * 2  # two norms, the biases of the two that add to the stream
    assert shared.parameters == (alone.parameters - whole) // 2 + whole
    assert not alone.collectives_forward and not torch.distributed.is_initialized()


def test_a_world_that_is_not_there_leaves_errors_as_they_were() -> None:
    """A process group puts "[rank0]:" before every line of a traceback, and leaves that behind."""
    before = sys.excepthook
    with fake_world(2):
        assert sys.excepthook is not before
    assert sys.excepthook is before


def test_fsdp_gathers_and_scatters_as_the_plan_says() -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    with fake_world(4):
        mesh = init_device_mesh("cpu", (4,))
        block = assembly.block(TINY)
        fully_shard(block, mesh=mesh)
        with Watch() as watch:
            block(torch.randn(1, 128, 128, requires_grad=True), causal=True).sum().backward()
    numbers = 4 * (12 * 128**2 + 13 * 128)
    found = sorted((one.kind, one.bytes) for one in watch.collectives)
    assert found[-1] == ("reduce-scatter", numbers)
    assert ("all-gather", numbers) in found
    assert {kind for kind, _ in found} == {"all-gather", "reduce-scatter"}


@pytest.mark.slow
@pytest.mark.parametrize(
    "layers, width, vocabulary, rows, length, micro_batches",
    [(8, 512, 8000, 8, 512, 1), (8, 512, 8000, 8, 512, 2), (8, 768, 16000, 4, 256, 1), (4, 768, 20000, 6, 384, 2)],
)
def test_memory_is_what_a_real_process_grows_by(
    layers: int, width: int, vocabulary: int, rows: int, length: int, micro_batches: int
) -> None:
    """Two steps of a process of its own with AdamW; what the C library keeps in small holes is not the network's, so it
    is told to map all larger blocks by themselves."""
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("the growth of a process is read from /proc, which is Linux")
    numbers = (layers, width, vocabulary, rows, length, micro_batches)
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"}
    child = [sys.executable, str(Path(__file__).with_name("rss_of_step.py")), *map(str, numbers)]
    grown = int(subprocess.run(child, check=True, capture_output=True, env=environment).stdout)
    config = gpt(layers, width, vocabulary, length)
    needs = memory(Work(config, length, "fp32"), ALONE, Schedule(rows, micro_batches, False))
    assert grown > 1e9
    assert needs.total == pytest.approx(grown, rel=0.1)
