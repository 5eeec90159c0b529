"""Cut edges against an attention written anew, and that attention stays fused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from interpret.all_families import Case, case, real, recorded
from interpret.editing import FACTS, logits_of, traced, untouched
from tasks.small_writers import writer
from torch import Tensor
from torch.nn import functional as F

import glassformer as gf
from glassformer.interpret.expressions import parse_attention
from glassformer.layers import attention as attention_file
from glassformer.layers.sites import edges


def masked_attention(
    query: Tensor, key: Tensor, value: Tensor, allowed: Tensor, scale: float, bias: Any = None
) -> Tensor:
    """softmax over what is allowed, head by head and row by row; zeros where nothing is."""
    out = torch.zeros(*query.shape[:3], value.shape[-1])
    share = query.shape[1] // key.shape[1]
    for b in range(query.shape[0]):
        for h in range(query.shape[1]):
            for q in range(query.shape[2]):
                keys = [k for k in range(key.shape[2]) if allowed[b, h, q, k]]
                if keys:
                    scores = torch.stack([query[b, h, q] @ key[b, h // share, k] for k in keys]) * scale
                    if bias is not None:
                        scores = scores + bias[0, h, q, keys]
                    out[b, h, q] = scores.softmax(0) @ value[b, h // share, keys]
    return out


def lengths_of(this: Case, attention: str) -> tuple[list[int], list[int]]:
    """Of queries and of keys."""
    if attention.startswith("encoder."):
        return this.lengths, this.lengths
    return this.text_lengths, this.lengths if "cross" in attention else this.text_lengths


def allowed_of(this: Case, attention: str) -> Tensor:
    """What an attention may see without any edit, [B, H, Q, K]."""
    queries, keys = lengths_of(this, attention)
    heads = getattr(this.network.config, "n_heads", 1)
    allowed = real(keys)[:, None, None, :].repeat(1, heads, max(queries), 1)
    looks_back = "cross" not in attention and not attention.startswith("encoder.")
    if looks_back and not isinstance(this.network, gf.Encoder):
        allowed = allowed & torch.ones(max(queries), max(keys), dtype=torch.bool).tril()
    return allowed


CUTS = [
    ("learned positions", "self_attention[*]", None, "end", "0:2"),
    ("learned positions", "self_attention[1]", (0, 3), "*", "0"),
    ("rotary, shared keys", "self_attention[0:2]", (1,), "1:3", "1 + 0"),
    ("rotary, shared keys", "self_attention[*]", None, "1", "*"),
    ("relative positions", "self_attention[*]", None, "end", "end"),
    ("post-norm", "self_attention[-1]", None, "*", "*"),
    ("word head", "self_attention[*]", (2, 1), "0", "1:"),
    ("encoder-decoder", "encoder.self_attention[*]", None, "end", "0:2"),
    ("encoder-decoder", "decoder.cross_attention[*]", (1,), "*", "end"),
    ("encoder-decoder", "decoder.cross_attention[0]", None, "end", "*"),
    ("two vocabularies", "decoder.cross_attention[*]", None, "0:2", "0:3"),
    ("LSTM", "decoder.cross_attention", None, "end", "0:2"),
]


@pytest.mark.parametrize(("name", "attention", "heads", "dst", "src"), CUTS)
def test_cut_edges_are_those_of_a_masked_attention(name: str, attention: str, heads: Any, dst: str, src: str) -> None:
    this = case(name)
    network, base = this.network, attention.partition("[")[0]
    written = attention if heads is None else f"{attention}.head[{','.join(map(str, heads))}]"
    names = [site for site in edges(network) if site.partition("[")[0] == base]
    asked = [f"{base}.{part}{'[*]' if '[' in names[0] else ''}" for part in ("query", "key", "value", "mixed")]
    trace = traced(this, *asked, "logits", edits=[gf.knockout(written, dst=dst, src=src)])
    bias = recorded(network, this.batch)[0]["relative.bias"] if "relative" in name else None
    source = base.startswith("encoder")
    at = trace.inputs.places(dst, "source" if source else "text")
    of = trace.inputs.places(src, "source" if source or "cross" in base else "text")
    scaled = getattr(network.config, "scale_scores", True) and hasattr(network.config, "n_heads")
    for layer, site in enumerate(names):
        query, key, value, mixed = (trace.stack(text)[layer] for text in asked)
        allowed = allowed_of(this, base)
        for row in range(4) if site in parse_attention(written, network)[0] else ():
            for q in at.index[row][at.real[row]].tolist():
                for k in of.index[row][of.real[row]].tolist():
                    allowed[row, list(heads) if heads else slice(None), q, k] = False
        expected = masked_attention(query, key, value, allowed, query.shape[-1] ** -0.5 if scaled else 1.0, bias)
        expected = torch.where(real(lengths_of(this, base)[0])[:, None, :, None], expected, 0.0)
        torch.testing.assert_close(mixed, expected, atol=2e-5, rtol=1e-4)
    assert (trace["logits"] - logits_of(this)).abs().max() > 1e-3
    assert untouched(network)


@pytest.mark.parametrize("name", ["learned positions", "rotary, shared keys", "encoder-decoder"])
def test_attention_stays_fused_where_edges_are_cut(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Long texts too, where the kernel of torch is taken: who may look nowhere gets zeros there as well."""
    this = case(name, (70, 90), (80, 66))
    site = "decoder.self_attention" if name == "encoder-decoder" else "self_attention"
    edits = [gf.knockout(f"{site}[*]", dst="1:5", src="*"), gf.knockout(f"{site}[1].head[2]", dst="end", src="0:40")]
    if name == "encoder-decoder":
        edits.append(gf.knockout("decoder.cross_attention[0]", dst="0:70", src="*"))
    legible = traced(this, "logits", f"{site}.pattern[*]", f"{site}.mixed[*]", edits=edits)
    calls = []
    fused = F.scaled_dot_product_attention

    def counted(*arguments: Any, **settings: Any) -> Tensor:
        calls.append(arguments[0].shape)
        return fused(*arguments, **settings)

    def refused(*arguments: Any) -> Tensor:
        raise AssertionError("the scores were stored")

    monkeypatch.setattr(attention_file.F, "scaled_dot_product_attention", counted)
    monkeypatch.setattr(attention_file, "attention_scores", refused)
    found = traced(this, "logits", f"{site}.mixed[*]", edits=edits)
    assert len(calls) == {"encoder-decoder": 6}.get(name, 3)
    torch.testing.assert_close(found["logits"], legible["logits"], atol=1e-4, rtol=1e-4)
    mixed, pattern = found.stack(f"{site}.mixed[*]"), legible.stack(f"{site}.pattern[*]")
    assert not mixed[:, :, :, 1:5].any() and mixed[:, :, :, 5].any()
    assert not pattern[:, :, :, 1:5].any()
    ends = torch.tensor(this.text_lengths) - 1
    last = pattern[1][torch.arange(2), 2, ends]
    assert not last[:, :40].any()
    torch.testing.assert_close(last.sum(1), torch.ones(2))


def test_the_last_token_of_a_subject_does_not_see_the_others() -> None:
    """The edit of the study: early layers do not gather the parts of a name; a name of one token stays as it is."""
    model = writer()
    edit = gf.knockout("self_attention[0:1]", dst="subject.last", src="subject[:-1]")
    whole, before = (gf.trace(model, FACTS, "self_attention.pattern[*]", edits=edits) for edits in ([edit], []))
    places = whole.inputs.places("subject", "text")
    subjects = [index[real].tolist() for index, real in zip(places.index, places.real, strict=True)]
    assert len(subjects[0]) > 1 == len(subjects[1])
    early, late = (trace.stack("self_attention.pattern[*]") for trace in (whole, before))
    *others, last = subjects[0]
    assert not early[0, 0, :, last, others].any() and late[0, 0, :, last, others].all()
    kept = [k for k in range(last + 1) if k not in others]
    wanted = late[0, 0, :, last, kept]
    torch.testing.assert_close(early[0, 0, :, last, kept], wanted / wanted.sum(1, keepdim=True))
    assert torch.equal(early[:, 1], late[:, 1]) and not torch.equal(early[1, 0], late[1, 0])
