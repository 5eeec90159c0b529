"""Path patching: what one part tells another directly, with everything between them as it was."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from glassformer.errors import InputError
from glassformer.interpret.acting import Keep
from glassformer.interpret.edits import Patch
from glassformer.interpret.expressions import Expression, parse
from glassformer.interpret.inputs import Inputs, network_of
from glassformer.interpret.running import run_edited
from glassformer.interpret.spans import Places
from glassformer.interpret.trace import Trace, trace
from glassformer.layers.sites import planned
from glassformer.models.decoder import Decoder

SENDERS = ("self_attention.head_output", "self_attention.output", "feed_forward.output", "embedding.token")
"""What is added to the residual stream."""

RECEIVERS = ("self_attention.query", "self_attention.key", "self_attention.value", "feed_forward.pre", "logits")
"""What is computed from the residual stream at its own position, and from nothing else."""


@dataclass(frozen=True, eq=False)
class PathPatch:
    """See `path_patch`."""

    sender: str
    receiver: str
    source: Trace | Mapping[str, Tensor]
    run = staticmethod(run_edited)

    def ready(self, model: Any, inputs: Inputs) -> Any:
        network = network_of(model)
        sender, receiver = parse(self.sender, network), parse(self.receiver, network)
        _check(network, sender, receiver)
        span, stream = sender.at, _stream(receiver, network)
        kept = trace(model, inputs, sender.text, f"{stream} @ *")
        source = self.source.whole(sender) if isinstance(self.source, Trace) else self.source
        told = _summed(source[sender.names[0]], sender)
        change = told - _summed(kept.whole(sender)[sender.names[0]], sender)
        places = inputs.places(span, "text")
        states = kept[f"{stream} @ *"]
        values = _received(network, _added(states, change, places), receiver)
        at = Keep(receiver.kind, receiver.heads, grad=False).gathered(values, places, None)
        return Patch(receiver.text, {receiver.names[0]: at}).ready(model, inputs)


def path_patch(sender: str, receiver: str, source: Trace) -> PathPatch:
    """At `receiver` put what it would get if `sender` alone had said what it says in the run of `source`, and nothing
    else had changed (Wang et al. 2023, section 3.1): the way through other heads and feed-forwards is left out.

    Both are at the same span, since a direct way goes through the residual stream of a position. Senders are
    `self_attention.head_output[l].head[…]`, `self_attention.output`, `feed_forward.output` and `embedding.token`;
    receivers `self_attention.query`, `.key`, `.value` and `feed_forward.pre` of a later layer, also of some heads, and
    `logits`. It is for decoders with norms before their layers. Raises `InputError` for everything else.
    """
    if not isinstance(source, Trace):
        raise InputError(f"'source' must be a trace that kept '{sender}', got {type(source).__name__}.")
    return PathPatch(sender, receiver, source)


def _check(network: Any, sender: Expression, receiver: Expression) -> None:
    if not isinstance(network, Decoder) or not network.config.norm_first:
        raise InputError(
            "path patching adds to the residual stream: it is for decoders with norms before their layers; behind a "
            "norm there are no separate ways."
        )
    for each, known, what in ((sender, SENDERS, "sender"), (receiver, RECEIVERS, "receiver")):
        if each.site not in known or len(each.names) != 1:
            raise InputError(f"'{each.text}': a {what} is one layer of {', '.join(known)}.")
    if sender.at != receiver.at:
        raise InputError(f"a direct way stays at its position: '{sender.at}' and '{receiver.at}' must be one span.")
    if sender.layers and receiver.layers:
        first, later = sender.layers[0], receiver.layers[0]
        inside = sender.site.startswith("self_attention") and receiver.site == "feed_forward.pre"
        if first > later or (first == later and not inside):
            raise InputError(f"'{receiver.text}' comes before '{sender.text}', which cannot tell it anything.")


def _stream(receiver: Expression, network: Decoder) -> str:
    """The residual stream that the receiver reads."""
    if receiver.layers is None:
        return f"residual_post[{len(network.stack.blocks) - 1}]"
    return f"residual_{'mid' if receiver.site == 'feed_forward.pre' else 'pre'}[{receiver.layers[0]}]"


def _summed(value: Tensor, sender: Expression) -> Tensor:
    """What is added to the stream, [n, k, D]: of heads, their sum."""
    return value.sum(1) if sender.kind == "heads" else value


def _added(states: Tensor, change: Tensor, places: Places) -> Tensor:
    """The stream [n, T, D] with the change [n, k, D] at its places."""
    change = torch.where(places.real[..., None], change, 0.0)
    return states.scatter_add(1, places.index[..., None].expand_as(change), change)


@torch.no_grad()
def _received(network: Decoder, states: Tensor, receiver: Expression) -> Tensor:
    """The receiver's value at all positions, from the stream that it reads."""
    stack = network.stack
    if receiver.layers is None:
        return network.head(states if stack.final_norm is None else stack.final_norm(states))  # type: ignore[no-any-return]
    layer = receiver.layers[0]
    keep = Keep(receiver.kind, None, grad=False)
    copy = planned(network, {receiver.names[0]: keep}).stack
    block = copy.blocks[layer]
    if receiver.site == "feed_forward.pre":
        block.feed_forward(block.norm_2(states))
    elif receiver.site == "self_attention.query":
        copy.onwards(states, layer, layer + 1, causal=True)
    else:
        copy.offers(states, layer)
    return keep.values[0]
