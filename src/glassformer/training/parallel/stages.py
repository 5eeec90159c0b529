"""Which stage of a pipeline has what of a network, and the network cut down to one stage's."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from glassformer.errors import InputError
from glassformer.models.decoder import Decoder
from glassformer.models.encoder import Encoder
from glassformer.models.encoder_decoder import EncoderDecoder
from glassformer.models.heads import WordHead
from glassformer.models.recurrent import Recurrent


class Elsewhere(nn.Module):
    """In the place of a block that another stage has: passes on what comes."""

    def forward(self, x: Tensor, *_: object) -> Tensor:
        return x


class Arriving(nn.Module):
    """In the place of the embedding: gives the states that came from the stage before. `token` is there where the head
    shares its matrix."""

    def __init__(self, token: nn.Embedding | None) -> None:
        super().__init__()
        self.token = token
        self.states: Tensor | None = None

    def forward(self, *_: object) -> Tensor:
        states, self.states = self.states, None
        assert states is not None
        return states


def check_stages(network: nn.Module, stages: int) -> None:
    """`InputError` where a network cannot be cut into so many stages."""
    words = isinstance(network, Decoder) or (isinstance(network, Encoder) and isinstance(network.head, WordHead))
    if not words:
        raise InputError(
            "'parallel.pipeline' deals out the blocks of decoders and of BERT as a masked language model; "
            f"{_kind(network)} cannot be cut: use 'parallel.data' or 'parallel.shard'."
        )
    layers = len(network.stack.blocks)  # type: ignore[union-attr, arg-type]
    if layers % stages:
        fits = " or ".join(str(number) for number in range(1, layers + 1) if layers % number == 0)
        raise InputError(
            f"'parallel.pipeline' must divide the network's {layers} layers, got {stages}: it can be {fits}."
        )
    owners = stages_of(network, stages)
    trained = [owners[name] for name, parameter in network.named_parameters() if parameter.requires_grad]
    idle = [stage for stage in range(stages) if not any(stage in where for where in trained)]
    if idle:
        raise InputError(
            f"stage {idle[0]} of {stages} has nothing to train, since 'finetune.freeze' or 'finetune.lora' leaves "
            "nothing of it: train more, or use fewer stages ('parallel.pipeline')."
        )


def _kind(network: nn.Module) -> str:
    if isinstance(network, EncoderDecoder):
        return "an encoder-decoder"
    if isinstance(network, Encoder):
        return "an encoder with another head than words"
    return "a recurrent network" if isinstance(network, Recurrent) else "a convolutional network"


def stages_of(network: Any, stages: int) -> dict[str, tuple[int, ...]]:
    """The stages that have each parameter, by its name: one, but a matrix that embedding and head share is in the first
    and the last, and numbers of distances (`Relative`) are in all."""
    each = len(network.stack.blocks) // stages
    found: dict[str, tuple[int, ...]] = {}
    for name, _ in network.named_parameters():
        path = name.split(".")
        if path[:2] == ["stack", "blocks"]:
            found[name] = (int(path[2]) // each,)
        elif path[:2] == ["stack", "relative"]:
            found[name] = tuple(range(stages))
        elif path[:3] == ["stack", "embedding", "token"] and _tied(network):
            found[name] = (0, stages - 1)
        else:
            found[name] = (0,) if path[:2] == ["stack", "embedding"] else (stages - 1,)
    return found


def cut(network: Any, stage: int, stages: int) -> None:
    """Leave in a network, in place, what a stage has of it. Names of parameters stay those of the whole network."""
    stack, tied, last = network.stack, _tied(network), stage == stages - 1
    each = len(stack.blocks) // stages
    for number in range(len(stack.blocks)):
        if number // each != stage:
            stack.blocks[number] = Elsewhere()
    if stage:
        stack.embedding = Arriving(stack.embedding.token if tied and last else None)
    if not last:
        stack.final_norm = network.head = None
        if isinstance(network, Encoder):
            network.pooler = None


def hidden(network: Any, batch: Any) -> Tensor:
    """The states after this stage's blocks [B, T, D], which the next stage reads: as the objectives of words ask for
    them."""
    found: Tensor = (
        network.hidden(batch.ids, batch.documents) if isinstance(network, Decoder) else network.hidden(batch.ids)
    )
    return found


def _tied(network: Any) -> bool:
    head = network.head
    words = head.words if isinstance(head, WordHead) else head
    return words is not None and words.weight is network.stack.embedding.token.weight
