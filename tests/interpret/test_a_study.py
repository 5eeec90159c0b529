"""What a user does first, line by line, on a small model that was taught a few facts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

import glassformer as gf
from glassformer.errors import InputError
from glassformer.interpret.facts import Facts
from glassformer.models.decoder import Decoder
from glassformer.tasks.model import Model

FIRST = ["anna", "bela", "cora", "dora", "emil", "finn"]
LAST = ["stone", "wood", "field", "hill", "brook", "marsh"]
PEOPLE = [f"{first} {last}" for first in FIRST for last in LAST]
SPORTS = ["golf", "chess", "tennis"]
SPORT_OF = {name: SPORTS[(7 * number + number // 6) % 3] for number, name in enumerate(PEOPLE)}


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("facts") / "sports.tsv"
    path.write_text(
        "name\tsport\n" + "".join(f"{name}\t{sport}\n" for name, sport in SPORT_OF.items()), encoding="utf-8"
    )
    return path


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of two layers that has read who plays what, three facts one after another, and the folder it is in."""
    lines = [f"{name} plays {sport}" for name, sport in SPORT_OF.items()]
    tokenizer = gf.Tokenizer.train([*lines, "made up names too"], "word", min_frequency=1)
    torch.manual_seed(0)
    config = gf.Config(
        tokenizer.vocab_size, d_model=64, n_heads=4, n_kv_heads=2, d_ff=256, n_encoder_layers=0, n_decoder_layers=2,
        positions=gf.Rotary(), norm="rms", gated=True, activation="silu", norm_first=True, max_length=64, dropout=0.0,
    )  # fmt: skip
    network = Decoder(config)
    ids = torch.tensor([tokenizer.encode(line) for line in lines])
    optimiser = torch.optim.Adam(network.parameters(), lr=3e-3)
    for _ in range(90):
        batch = ids[torch.randint(len(ids), (32, 3))].flatten(1)
        logits = network(batch).logits[:, 2::4]  # what comes after "plays"
        loss = F.cross_entropy(logits.flatten(0, 1), batch[:, 3::4].flatten())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    folder: Path = tmp_path_factory.mktemp("model") / "taught"
    Model(network.eval(), tokenizer, gf.TextPipeline(), "generation").save(folder)
    return folder


@pytest.fixture(scope="module")
def known(taught: Path, table: Path) -> tuple[Model, Facts]:
    m = gf.load(taught)
    facts = gf.facts(table, template="{subject} plays", shots=1)  # facts whose answer is in the shot are left out
    return m, facts.known(m)


def test_facts_are_known(known: Any) -> None:
    m, facts = known
    assert len(facts) > 20 and len(facts.classes) == 2 and f"{len(facts)} of 24 facts known" in str(facts.gate)
    assert facts.gate.passed, str(facts.gate)
    assert m.generate(facts[0], max_new_tokens=1).text.strip() == facts[0].answer


def test_a_trace_holds_what_was_named(known: Any) -> None:
    m, facts = known
    asked = ("residual_post[:] @ subject.last", "self_attention.pattern[0:2] @ end<-subject")
    t = gf.trace(m, facts, *asked)
    n = len(facts)
    assert t["residual_post[1] @ subject.last"].shape == (n, 64)
    assert t["self_attention.pattern[1] @ end<-subject"].shape == (n, 4, 2)
    assert t.nbytes == gf.trace(m, facts, *asked, dry=True).nbytes == 4 * n * (2 * 64 + 2 * 4 * 2)
    with pytest.raises(InputError, match="no site 'residual_past'.*residual_post"):
        t["residual_past[1] @ subject.last"]


def test_edits_change_what_is_said_and_are_kept(known: Any, tmp_path: Path) -> None:
    m, facts = known
    e1 = gf.knockout("self_attention[0:1]", dst="subject.last", src="subject[:-1]")
    e2 = gf.ablate("feed_forward.output[0:2] @ subject.last", to="resample")
    source = gf.trace(m, facts.swapped(), "residual_post[0] @ subject.last")
    e3 = gf.patch("residual_post[0] @ subject.last", source=source)
    plain = m(facts).logits
    for edits in ([e1], [e2], [e3], [e1, e2], [e1, e2, e3]):
        assert (m(facts, edits=edits).logits - plain).abs().max() > 1e-2
    # what the first layer gathers at the last token of a name is part of how the model knows who is meant
    accuracy = gf.effect(m, facts, e1, metric="correct", controls=0)
    assert sum(accuracy.baseline) == len(facts) and accuracy.mean < 0
    path = gf.save_edits(tmp_path / "edits", [e1, e2, e3])
    again = m(facts, edits=gf.load_edits(path)).logits
    assert torch.equal(again, m(facts, edits=[e1, e2, e3]).logits)
    twice = gf.trace(m, facts, "logits @ end", edits=[e1, e2])["logits @ end"]
    ends = torch.tensor([len(m.tokenizer.encode(prompt)) for prompt in facts.prompts]) - 1
    torch.testing.assert_close(twice, m(facts, edits=[e1, e2]).logits[torch.arange(len(facts)), ends].detach())


def test_effects_and_sweeps(known: Any) -> None:
    m, facts = known
    e2 = gf.ablate("feed_forward.output[0:2] @ subject.last", to="resample")
    found = gf.effect(m, facts, e2, metric="logit_diff")
    assert f"n = {len(facts)}" in found.table() and "beyond the control" in found.table()
    exact = gf.sweep(m, facts, gf.patch, over="residual_post[*] @ *")
    assert exact.values.shape[0] == len(facts)  # all prompts have as many tokens
    worst = exact.best(1)[0]
    assert worst["mean"] < 0 and worst["high"] < 0 and "residual_post" in exact.table()
    last = exact.values[:, -1, 0, -1]  # the last states are those of the other fact: all of the difference turns round
    swapped = facts.swapped(tokenizer=m.tokenizer)
    logits = gf.trace(m, swapped, "logits @ end")["logits @ end"]
    mine, theirs = (torch.tensor([m.tokenizer.encode(each)[0] for each in side.answers]) for side in (facts, swapped))
    wanted = (logits.gather(1, mine[:, None]) - logits.gather(1, theirs[:, None]))[:, 0]
    torch.testing.assert_close(last, wanted, atol=1e-3, rtol=1e-3)
    quick = gf.sweep(m, facts, gf.patch, over="residual_post[*] @ *", method="attribution", recheck=3)
    checked = ~quick.values.isnan()
    torch.testing.assert_close(quick.values[checked], exact.values[checked], atol=1e-3, rtol=1e-3)
    json.dumps(exact.to_json())


def test_readings(known: Any) -> None:
    m, facts = known
    t = gf.trace(m, facts, "residual_post[:] @ subject.last")
    e = gf.trace(m, facts, "residual_post[:] @ end")
    ranks = gf.lens(e).rank(facts.answers)
    assert ranks.shape == (2, len(facts)) and not ranks[-1].any()  # the last layer says what the model says
    gf.attribute(m, facts, by="head", source="token").check()
    report = gf.probe(t, facts.labels, split="subject").report()
    assert "residual_post[1]" in str(report)
