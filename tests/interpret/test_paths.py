"""Path patching against the same computed by hand, and against what it must add up to."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import glassformer as gf
from glassformer.errors import InputError
from glassformer.interpret.paths import path_patch

CONFIG = gf.Config(
    vocab_size=40,
    d_model=16,
    n_heads=4,
    n_kv_heads=2,
    d_ff=24,
    n_encoder_layers=0,
    n_decoder_layers=3,
    max_length=32,
    norm_first=True,
    norm="rms",
    positions=gf.Rotary(),
)
CLEAN, OTHER = [[5, 6, 7, 8, 9], [11, 12, 13, 14, 15]], [[25, 26, 27, 28, 29], [31, 32, 33, 34, 35]]


@pytest.fixture(scope="module")
def network() -> Any:
    torch.manual_seed(0)
    return gf.Decoder(CONFIG).eval()


def logits(network: Any, edits: list[Any]) -> Tensor:
    value: Tensor = gf.trace(network, CLEAN, "logits @ 3", edits=edits)["logits @ 3"]
    return value


def test_to_the_logits_adds_the_difference_before_the_final_norm(network: Any) -> None:
    sender = "feed_forward.output[1] @ 3"
    source = gf.trace(network, OTHER, sender)
    here = gf.trace(network, CLEAN, sender, "residual_post[2] @ 3")
    states = here["residual_post[2] @ 3"] + source[sender] - here[sender]
    with torch.no_grad():
        expected = network.head(network.stack.final_norm(states))
    torch.testing.assert_close(logits(network, [path_patch(sender, "logits @ 3", source)]), expected)


def test_to_a_query_of_one_head_changes_only_that_head(network: Any) -> None:
    sender, receiver = "self_attention.head_output[0].head[1] @ 3", "self_attention.query[2].head[3] @ 3"
    source = gf.trace(network, OTHER, sender)
    here = gf.trace(network, CLEAN, sender, "residual_pre[2]", "self_attention.query[2] @ 3")
    states = here["residual_pre[2]"].clone()
    states[:, 3] += (source[sender] - here[sender])[:, 0]
    attention, norm = network.stack.blocks[2].self_attention, network.stack.blocks[2].norm_1
    with torch.no_grad():
        rotation = (network.stack.cos[:5], network.stack.sin[:5])
        query = attention.queries_keys_values(norm(states), rotation)[0][:, :, 3]
    edit = path_patch(sender, receiver, source)
    found = gf.trace(network, CLEAN, "self_attention.query[2] @ 3", edits=[edit])["self_attention.query[2] @ 3"]
    torch.testing.assert_close(found[:, 3], query[:, 3])
    torch.testing.assert_close(found[:, :3], here["self_attention.query[2] @ 3"][:, :3])
    assert not torch.allclose(found[:, 3], here["self_attention.query[2] @ 3"][:, 3])


@pytest.mark.parametrize("receiver", ["self_attention.key[1]", "self_attention.value[1]", "feed_forward.pre[1]"])
def test_patched_from_itself_nothing_changes(network: Any, receiver: str) -> None:
    sender = "self_attention.output[0] @ 1:4"
    edit = path_patch(sender, f"{receiver} @ 1:4", gf.trace(network, CLEAN, sender))
    torch.testing.assert_close(logits(network, [edit]), logits(network, []))


def test_of_the_last_feed_forward_the_direct_way_is_the_only_one(network: Any) -> None:
    sender = "feed_forward.output[2] @ 3"
    source = gf.trace(network, OTHER, sender)
    direct = logits(network, [path_patch(sender, "logits @ 3", source)])
    torch.testing.assert_close(direct, logits(network, [gf.patch(sender, source)]))


def test_it_is_kept_in_files(network: Any, tmp_path: Path) -> None:
    sender = "self_attention.head_output[0].head[1] @ 3"
    edit = path_patch(sender, "logits @ 3", gf.trace(network, OTHER, sender))
    again = gf.load_edits(gf.save_edits(tmp_path / "edits.json", [edit]))
    torch.testing.assert_close(logits(network, list(again)), logits(network, [edit]))


def test_what_cannot_be(network: Any) -> None:
    source = gf.trace(network, OTHER, "self_attention.output[*] @ 3")
    for sender, receiver, said in (
        ("self_attention.output[1] @ 3", "self_attention.query[1] @ 3", "comes before"),
        ("self_attention.output[1] @ 3", "self_attention.query[2] @ end", "one span"),
        ("self_attention.output[1] @ 3", "self_attention.mixed[2] @ 3", "a receiver is"),
        ("residual_post[0] @ 3", "logits @ 3", "a sender is"),
    ):
        with pytest.raises(InputError, match=said):
            logits(network, [path_patch(sender, receiver, source)])
    after = gf.Decoder(replace(CONFIG, norm_first=False)).eval()
    with pytest.raises(InputError, match="norms before"):
        logits(after, [path_patch("self_attention.output[0] @ 3", "logits @ 3", source)])
    with pytest.raises(InputError, match="must be a trace"):
        path_patch("self_attention.output[0] @ 3", "logits @ 3", torch.zeros(3))  # type: ignore[arg-type]
