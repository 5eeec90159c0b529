"""Direct paths from what each part of a stack writes to a logit, with the scales of norms frozen: sums, exactly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from glassformer.errors import InputError
from glassformer.interpret.inputs import Inputs
from glassformer.interpret.trace import Trace, trace
from glassformer.interpret.words import word_stack
from glassformer.layers.block import Block, Stack
from glassformer.layers.norm import LayerNorm
from glassformer.models.encoder import Encoder
from glassformer.models.weights import Weights, bias_of, weight_of

By = Literal["layer", "component", "head", "neuron"]
Groups = dict[str, Tensor]
"""Parts of the logits [n, …] by where they come from; axes behind the texts are layers, heads, tokens or neurons."""

ATTENTIONS = ("self_attention", "cross_attention")


@dataclass(frozen=True)
class Paths:
    """How a network's logit is cut into parts: see `Paths.groups`."""

    network: Any
    by: By
    tokens: bool = False

    @property
    def stack(self) -> Stack:
        """The stack that ends in words."""
        return word_stack(self.network)[0]

    @property
    def prefix(self) -> str:
        """What its sites' names begin with."""
        return word_stack(self.network)[1]

    @property
    def frozen(self) -> list[str]:
        """The sites of the scales that are held: of all norms between a part and the logit."""
        names = [] if self.stack.final_norm is None else ["final_norm.scale"]
        if not self.network.config.norm_first:
            names += [f"{_norm_of(self.stack.blocks[0], name)}.scale" for name in self._sublayers]
        if self.stack.embedding.norm is not None:
            names.append("embedding.norm.scale")
        return [self.prefix + name for name in names]

    @property
    def _sublayers(self) -> list[str]:
        """What a block adds to the stream, in order."""
        crossed = self.stack.blocks[0].cross_attention is not None
        return ["self_attention", *(["cross_attention"] * crossed), "feed_forward"]

    def groups(
        self, model: Any, inputs: Inputs, answers: Int[Tensor, n], others: Int[Tensor, n] | None
    ) -> tuple[Groups, Float[Tensor, n]]:
        """The parts of each text's logit, and the logit (less that of the other answer) as the model computes it.

        The stream at the end of a text is x = Σ parts. The logit reads it as u · x + c, where going back from the
        answer's row of the unembedding, u = Wᵤ, each norm turns u into s · g ∘ u (LayerNorm: less its mean) with its
        gain g and its frozen scale s, and adds its bias · u to c. Post-norm networks have such a norm behind each part;
        so u differs from one sub-layer to the next. All sums are fp64.
        """
        kept: Trace = trace(model, inputs, *self._expressions())
        along = self._unembedding(answers, others)
        logits = self._logits(kept, answers, others)
        found: Groups = {}
        if self.network.head.bias is not None:
            found["head.bias"] = _difference(self.network.head.bias.detach().double(), answers, others)
        if self.stack.final_norm is not None:
            along = self._back(kept, "final_norm", None, self.stack.final_norm, along, found)
        for layer in reversed(range(len(self.stack.blocks))):
            block = self.stack.blocks[layer]
            for name in reversed(self._sublayers):
                if not block.norm_first:
                    own = _norm_of(block, name)
                    along = self._back(kept, own, layer, getattr(block, own), along, found)
                self._write(kept, name, layer, getattr(block, name), along, found)
        if (norm := self.stack.embedding.norm) is not None:
            along = self._back(kept, "embedding.norm", None, norm, along, found)
        for name in self._embeddings():
            found[name] = _along(self._at(kept, name), along)
        return self._arranged(found), logits

    def _expressions(self) -> list[str]:
        wanted = []
        for name in self._sublayers:
            attention = name in ATTENTIONS
            if attention and self.by == "head" and self.tokens:
                wanted += [f"{name}.pattern[*] @ end<-*", f"{name}.value[*] @ *"]
            elif attention and self.by == "head":
                wanted.append(f"{name}.mixed[*] @ end")
            elif not attention and self.by == "neuron":
                wanted.append(f"{name}.hidden[*] @ end")
            else:
                wanted.append(f"{name}.output[*] @ end")
        wanted += [f"{name} @ end" for name in self._embeddings()]
        scales = [name.removeprefix(self.prefix) for name in self.frozen]
        wanted += [f"{name}[*] @ end" if name.startswith("norm_") else f"{name} @ end" for name in scales]
        last = "final_norm.output" if self.stack.final_norm is not None else "residual_post[-1]"
        return [self.prefix + expression for expression in (*wanted, f"{last} @ end")]

    def _embeddings(self) -> list[str]:
        embedding = self.stack.embedding
        names = {"token": True, "position": embedding.position is not None, "segment": embedding.segment is not None}
        return [f"embedding.{name}" for name, there in names.items() if there]

    def _at(self, kept: Trace, name: str, span: str = "end") -> Tensor:
        return kept[f"{self.prefix}{name} @ {span}"].double()

    def _unembedding(self, answers: Tensor, others: Tensor | None) -> Float[Tensor, "n D"]:
        along = _difference(Weights(self.network).W_U.t(), answers, others).double()
        return along * self._head_scale

    @property
    def _head_scale(self) -> float:
        """By what states are multiplied before the head (T5)."""
        config = self.network.config
        return config.d_model**-0.5 if self.prefix and config.scale_head else 1.0

    @torch.no_grad()
    def _logits(self, kept: Trace, answers: Tensor, others: Tensor | None) -> Float[Tensor, n]:
        last = "final_norm.output" if self.stack.final_norm is not None else "residual_post[-1]"
        hidden = kept[f"{self.prefix}{last} @ end"]
        logits = self.network.head(hidden * self._head_scale if self._head_scale != 1.0 else hidden).double()
        own = logits.gather(1, answers[:, None])[:, 0]
        return own if others is None else own - logits.gather(1, others[:, None])[:, 0]

    def _back(
        self, kept: Trace, name: str, layer: int | None, norm: Any, along: Tensor, found: Groups
    ) -> Float[Tensor, "n D"]:
        """Before a norm, the direction along which the logit reads what is after it as `along`."""
        place = name if layer is None else f"{name}[{layer}]"
        scale = self._at(kept, f"{name}.scale" if layer is None else f"{name}.scale[{layer}]")
        before = along * norm.weight.detach().double() * scale
        if not isinstance(norm, LayerNorm):
            return before
        found[place + ".bias"] = along @ norm.bias.detach().double()
        return before - before.mean(-1, keepdim=True)

    def _write(self, kept: Trace, name: str, layer: int, module: Any, along: Tensor, found: Groups) -> None:
        """What a sub-layer adds to the logit: as one part, or by heads, tokens or neurons, and then its bias."""
        place = f"{name}[{layer}]"
        last = "to_output" if name in ATTENTIONS else "down"
        heads, neurons = self.by == "head" and name in ATTENTIONS, self.by == "neuron" and name not in ATTENTIONS
        if not (heads or neurons):
            found[place] = _along(self._at(kept, f"{name}.output[{layer}]"), along)
            return
        toward = along @ weight_of(module, last).double()
        if neurons:
            found[place] = self._at(kept, f"{name}.hidden[{layer}]") * toward
        elif self.tokens:
            toward = toward.unflatten(1, (module.n_heads, module.d_head))
            value = self._at(kept, f"{name}.value[{layer}]", "*")
            value = value.repeat_interleave(module.n_heads // module.n_kv_heads, 1)
            pattern = kept[f"{self.prefix}{name}.pattern[{layer}] @ end<-*"].double()
            found[place] = pattern * torch.einsum("nhkd,nhd->nhk", value, toward)
        else:
            toward = toward.unflatten(1, (module.n_heads, module.d_head))
            found[place] = (self._at(kept, f"{name}.mixed[{layer}]") * toward).sum(-1)
        if (bias := bias_of(module, last)) is not None:
            found[place + ".bias"] = along @ bias.detach().double()

    def _arranged(self, found: Groups) -> Groups:
        """The parts in the order in which they are written, those of all layers together."""
        names = [name for name in found if name.startswith("embedding.") and not name.endswith(".bias")]
        arranged = {name: found[name] for name in names}
        if "embedding.norm.bias" in found:
            arranged["embedding.norm.bias"] = found["embedding.norm.bias"]
        layers = range(len(self.stack.blocks))
        if self.by == "layer":
            of_layer = [[found[name] for name in found if f"[{layer}]" in name] for layer in layers]
            arranged["layer"] = torch.stack([torch.stack(parts).sum(0) for parts in of_layer], 1)
        else:
            for name in dict.fromkeys(name.replace("[0]", "") for name in reversed(found) if "[0]" in name):
                base, _, end = name.partition(".")
                keys = [f"{base}[{layer}]" + (f".{end}" if end else "") for layer in layers]
                arranged[name] = torch.stack([found[key] for key in keys], 1)
        arranged |= {name: found[name] for name in ("final_norm.bias", "head.bias") if name in found}
        return {self.prefix + name if name != "head.bias" else name: value for name, value in arranged.items()}


def check_linear(network: Any) -> None:
    """`InputError` where the head is no linear function of the last states."""
    word_stack(network)
    if isinstance(network, Encoder):
        raise InputError(
            "a masked language model's head has a dense layer with an activation before the words: its logits are no "
            "sum over what wrote into the stream. Attribute a decoder or an encoder-decoder; here, ablate instead."
        )


def joined_groups(batches: Sequence[Groups]) -> Groups:
    """The groups of several batches of texts; where one has more tokens than another, zeros."""
    found = {}
    for name in batches[0]:
        values = [groups[name] for groups in batches]
        widest = max(value.shape[-1] for value in values) if values[0].ndim == 4 else 0
        padded = [nn.functional.pad(v, (0, widest - v.shape[-1])) if widest else v for v in values]
        found[name] = torch.cat(padded)
    return found


def _norm_of(block: Block, name: str) -> str:
    """The norm that goes with a sub-layer."""
    if name == "self_attention":
        return "norm_1"
    return "norm_2" if name == "cross_attention" or block.cross_attention is None else "norm_3"


def _difference(rows: Tensor, answers: Tensor, others: Tensor | None) -> Tensor:
    return rows[answers] if others is None else rows[answers] - rows[others]


def _along(written: Float[Tensor, "n D"], along: Float[Tensor, "n D"]) -> Float[Tensor, n]:
    return (written * along).sum(-1)
