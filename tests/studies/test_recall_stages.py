"""The stages of the study of recall at toy size: running on from an edit equals a whole run, and all is reported."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from studies.recall_models import ANSWERS, made, random_model, trained_model, work_of
from torch import Tensor

from glassformer.errors import InputError
from glassformer.interpret.controls import subject_tokens
from glassformer.interpret.edits import ablate, apply, knockout
from glassformer.interpret.expressions import parse
from glassformer.interpret.facts import Facts
from glassformer.interpret.trace import trace
from glassformer.studies.fact_recall import concatenation, gate, stages, study
from glassformer.studies.fact_recall.bench import (
    ELSEWHERE,
    Bench,
    Layers,
    halved,
    halves,
    thirds,
    windows,
    with_elsewhere,
)
from glassformer.studies.fact_recall.lookup import lookup_windows, random_bench
from glassformer.studies.fact_recall.neurons import Neurons, like_norm, lookup_layers
from glassformer.studies.fact_recall.predictions import PREDICTIONS
from glassformer.studies.fact_recall.questions import asked_of, opposites
from glassformer.studies.fact_recall.reading import bag_of, folds_of, read
from glassformer.studies.fact_recall.stages import Material, Work
from glassformer.studies.fact_recall.swap import answer_basis, orthonormal, random_basis, swapped
from glassformer.studies.fact_recall.verdicts import judged
from glassformer.studies.report import write_report
from glassformer.studies.running import Done
from glassformer.studies.sections import claims_of
from glassformer.studies.study import Setting


@pytest.fixture(scope="module")
def bench() -> Bench:
    """Random weights: what is compared must agree whatever the network does."""
    return work_of(random_model(), Facts(tuple(_longer(number, fact) for number, fact in enumerate(made())))).bench


def _longer(number: int, fact: object) -> object:
    """Prompts and names of different lengths."""
    name = fact.subject + "x" * (number % 3)  # type: ignore[attr-defined]
    prompt = f"{'So we ' * (number % 2)}say that {name} likes"
    return replace(fact, subject=name, prompt=prompt, start=-1)  # type: ignore[type-var]


def _ends(bench: Bench, edits: list[object]) -> Tensor:
    """logit(answer) − logit(partner's answer), by a whole run of each text alone."""
    rows = []
    with torch.no_grad():
        logits = bench.model(bench.facts, edits=edits).logits  # type: ignore[arg-type]
    for row in range(len(bench.facts)):
        last = logits[row, int(bench.inputs.ends[row])]
        rows.append(last[bench.answers[row]] - last[bench.answers[int(bench.partners[row])]])
    return torch.stack(rows)


def test_cuts_and_outputs_as_in_a_whole_run(bench: Bench) -> None:
    assert torch.allclose(bench.baseline, _ends(bench, []), atol=1e-5)
    cut = knockout("self_attention[0:1]", dst="subject.last", src="subject[:-1]")
    assert torch.allclose(bench.difference([cut], Layers(0, 1), "subject.last"), _ends(bench, [cut]), atol=1e-5)
    last = knockout("self_attention[1]", dst="end", src="subject")
    assert torch.allclose(bench.difference([last], Layers(1, 2), "end"), _ends(bench, [last]), atol=1e-5)
    expression = "feed_forward.output[0] @ subject"
    zeros = bench.put(expression, bench.values(bench.trace(expression), expression, "zero"))
    same = ablate(expression, to="zero")
    assert torch.allclose(bench.difference([zeros], Layers(0, 1), "subject"), _ends(bench, [same]), atol=1e-5)
    assert (bench.difference([cut], Layers(0, 1), "subject.last") - bench.baseline).abs().max() > 1e-3


def test_what_does_not_fit_is_computed_each_time(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("glassformer.studies.fact_recall.bench.KEPT_BYTES", 0)
    again = replace(bench, seen={})
    assert torch.equal(again.streams([0, 2], "end"), torch.stack([bench.stream(0, "end"), bench.stream(2, "end")]))
    assert not again.seen and bench.seen


def test_states_after_a_cut(bench: Bench) -> None:
    cut = knockout("self_attention[0]", dst="subject.last", src="subject[:-1]")
    site = "residual_post[1] @ subject.last"
    for edits in ([], [cut]):
        wanted = trace(bench.model, bench.facts, site, edits=edits)[site]
        assert torch.allclose(bench.states(edits, Layers(0, 1), "subject.last", 2), wanted, atol=1e-5)
    assert torch.allclose(bench.stream(2, "subject.last"), trace(bench.model, bench.facts, site)[site], atol=1e-5)


def test_held_attention_loses_what_the_edges_carried_and_no_more(bench: Bench) -> None:
    """In layer 0 the last token's heads mix Σ p v over all but the name's other tokens; later patterns are unedited."""
    edits = concatenation._frozen(bench, Layers(0, 1), 2)
    rows = "self_attention.pattern[0:2] @ subject.last<-*"
    found = trace(bench.model, bench.inputs, "self_attention.mixed[0] @ subject.last", rows, edits=edits)
    clean = trace(bench.model, bench.inputs, rows, "self_attention.value[0] @ *")
    parsed = parse(rows, bench.network)
    before, values = clean.whole(parsed), clean["self_attention.value[0] @ *"]
    held = found.whole(parsed)
    assert torch.equal(held["self_attention.pattern[1]"], before["self_attention.pattern[1]"])
    group = bench.network.config.n_heads // values.shape[1]
    for row in range(len(bench.facts)):
        first, stop = bench.inputs.text.spans["subject"][row]
        kept = [place for place in range(stop) if not first <= place < stop - 1]
        pattern = before["self_attention.pattern[0]"][row, :, 0, kept]
        mixed = torch.einsum("hk,hkd->hd", pattern, values[row].repeat_interleave(group, 0)[:, kept])
        assert torch.allclose(found["self_attention.mixed[0] @ subject.last"][row], mixed, atol=1e-5)


def test_neurons_are_taken_away(bench: Bench) -> None:
    """All by zeros as `ablate` does; one as a function of the values does; resampled ones are the partner's."""
    neurons = Neurons.of(bench, Layers(0, 2))
    everything = torch.ones(2, 48, dtype=torch.bool)
    wanted = _ends(bench, [ablate("feed_forward.hidden[0:2] @ subject", to="zero")])
    assert torch.allclose(torch.tensor(neurons.drop(everything, "zero")), bench.baseline - wanted, atol=1e-5)
    one = torch.zeros_like(everything)
    one[1, 7] = True

    def without(value: Tensor) -> Tensor:
        return torch.where(torch.arange(48) == 7, 0.0, value)

    wanted = _ends(bench, [apply("feed_forward.hidden[1] @ subject", without)])
    assert torch.allclose(torch.tensor(neurons.drop(one, "zero")), bench.baseline - wanted, atol=1e-5)
    site = "feed_forward.hidden[1] @ subject.last"
    own = bench.trace(site)[site]
    places = bench.inputs.places("subject", "text")
    last = neurons.values["resample"]["feed_forward.hidden[1]"][torch.arange(len(own)), places.counts - 1]
    assert torch.allclose(last, own[bench.partners], atol=1e-6)
    assert all(bench.classes[row] != bench.classes[int(other)] for row, other in enumerate(bench.partners))


def test_like_norms() -> None:
    norms = torch.arange(1000.0).reshape(2, 500)
    chosen = torch.tensor([*range(0, 100, 3), *range(900, 1000, 3)])
    found = like_norm(chosen, norms, 0)
    assert len(found) == len(set(found.tolist())) == len(chosen) and not set(found.tolist()) & set(chosen.tolist())
    assert abs(float(found.float().mean() - chosen.float().mean())) < 10
    assert len(like_norm(torch.arange(450), norms, 0)) == 450  # more than the bins have left


def test_swapped_in_a_subspace(bench: Bench) -> None:
    draw = torch.Generator().manual_seed(0)
    own, other = torch.randn(2, 5, 1, 32, generator=draw)
    basis = random_basis(torch.empty(3, 32), 1)
    assert torch.allclose(basis @ basis.T, torch.eye(3), atol=1e-6)
    found = swapped(own, other, basis)
    assert torch.allclose(found @ basis.T, other @ basis.T, atol=1e-5)
    rest = orthonormal(torch.linalg.svd(basis).Vh[3:])
    assert torch.allclose(found @ rest.T, own @ rest.T, atol=1e-5)
    assert swapped(own, other, None) is other
    answers = answer_basis(bench)
    assert answers.shape == (len(ANSWERS) - 1, 32)
    head, norm = bench.network.head.weight, bench.network.stack.final_norm.weight
    between = (head[bench.answers[0]] - head[bench.answers[int(bench.partners[0])]]) * norm
    between = between - between.mean()
    assert torch.allclose(between @ answers.T @ answers, between, atol=1e-4)


def test_probes_read_what_is_there_and_the_cut_of_held_out_rows() -> None:
    draw = torch.Generator().manual_seed(0)
    labels = ["a", "b", "c"] * 20
    noise = torch.randn(60, 30, generator=draw)
    signal = noise + 3 * torch.nn.functional.one_hot(torch.arange(60) % 3, 30)
    right = read(signal, {"same": signal, "gone": noise}, labels)
    assert sum(right["same"]) > 45 and sum(right["gone"]) < 35
    assert sum(read(noise, {"noise": noise}, labels)["noise"]) < 35  # held out, nothing is learnt by heart
    folds = folds_of(torch.arange(60) % 3, 5)
    assert all((folds[torch.arange(60) % 3 == label] == fold).sum() == 4 for label in range(3) for fold in range(5))
    assert bag_of([[1, 2, 2], [2, 3], [1, 9]]).tolist() == [[1, 2], [0, 1], [1, 0]]


def test_layers_in_windows() -> None:
    assert [str(each) for each in windows(30, 8)] == ["0:4", "4:8", "8:11", "11:15", "15:19", "19:22", "22:26", "26:30"]
    assert [str(each) for each in windows(2, 8)] == ["0:1", "1:2"]
    assert [str(each) for each in (*thirds(30), *thirds(6), *halves(30), *halves(5))] == [
        "0:10", "10:20", "0:2", "2:4", "0:15", "15:30", "0:2", "3:5",
    ]  # fmt: skip
    assert [str(each) for each in lookup_windows(windows(6, 8), 4)] == ["1:2", "2:3", "3:4"]
    with pytest.raises(InputError):
        thirds(1)
    found = {"drops": {"feed_forward": [[9.0], [1.0], [2.0], [4.0]]}, "windows": [[0, 2], [2, 4], [4, 6], [6, 8]]}
    assert lookup_layers({**found, "inside": [1, 2, 3]}, [0]) == Layers(4, 8)


def test_halves_of_facts_have_like_counts() -> None:
    first, second = halved(["a"] * 9 + ["b"] * 4 + ["c"] * 3, 0)
    assert sorted(first + second) == list(range(16)) and abs(len(first) - len(second)) <= 1


def test_a_place_elsewhere(bench: Bench) -> None:
    inputs = with_elsewhere(bench.inputs, "subject[:-1]", 3, only_before=True)
    for row, (first, stop) in enumerate(inputs.text.spans["elsewhere"]):
        begin, end = inputs.text.spans["subject"][row]
        assert stop - 1 <= begin and stop - 1 - first in (0, end - begin - 1)
    empty = with_elsewhere(bench.inputs, "prompt", 0)
    assert empty.places(ELSEWHERE, "text").counts.tolist() == [0] * len(bench.facts)


def test_a_network_with_random_weights(bench: Bench) -> None:
    chance = random_bench(bench)
    assert not torch.allclose(chance.stream(2, "end"), bench.stream(2, "end"))
    assert torch.equal(random_bench(bench).stream(2, "end"), chance.stream(2, "end"))
    assert len(subject_tokens(bench.inputs)[0]) == int(bench.inputs.places("subject", "text").counts[0])


@pytest.mark.slow
def test_the_whole_study_of_a_model_that_knows(tmp_path: Path) -> None:
    """Every prediction is tested or says why not; numbers are plain, figures drawn, kept parts not measured again."""
    material = Material(trained_model(), made(), opposites(), limit=16)
    said: list[str] = []
    setting = Setting("toy", say=said.append, given={"seed": 0})
    done = judged(study(material, setting, tmp_path))
    claims = [claim for each in done for claim in claims_of(each)]
    names = {test["name"] for each in done if each.result for test in each.result.get("tests", [])}
    assert names == {name for name, each in PREDICTIONS.items() if each.part != "recall"}
    assert len(claims) == 1 + 5 + len(names) and claims[0].verdict == "supported"
    assert any(claim.verdict == "supported" for claim in claims[1:])
    page = write_report("A study", "About it.", done, tmp_path, [])
    json.loads((tmp_path / "report.json").read_text(), parse_constant=pytest.fail)
    pictures = list((tmp_path / "figures").glob("*.png"))
    assert len(pictures) == 7 and all(picture.name in page.read_text() for picture in pictures)
    assert len(said) > 10
    said.clear()
    again = judged(study(material, setting, tmp_path))
    assert sum("measured before" in line for line in said) == 6 == len(said)
    assert [claim for each in again for claim in claims_of(each)] == claims


def test_a_model_that_knows_nothing(tmp_path: Path) -> None:
    """Not testable, from the first claim to the last; nothing else is measured."""
    done = judged(study(Material(random_model(), made(), opposites()), Setting("toy"), tmp_path))
    claims = [claim for each in done for claim in claims_of(each)]
    assert {claim.verdict for claim in claims} == {"not testable here"} and len(claims) > 20
    assert "no answer has 3 known facts" in claims[-1].measured
    assert "not testable here" in write_report("A study", "", done, tmp_path, []).read_text()


def test_a_stage_that_cannot_be_measured_says_so() -> None:
    """Names of one token each: nothing is put together."""
    facts = Facts(tuple(replace(fact, subject=fact.subject[0], start=-1) for fact in made()))
    work = work_of(random_model(), facts)
    part = stages()[0].part(work)
    result = part.run(Setting("toy"))
    assert "several tokens" in result["missing"] and part.draw(result, Path()) == [] and part.tables(result) == []
    claims = claims_of(judged([Done(part, result)])[0])
    assert {claim.verdict for claim in claims} == {"not testable here"}
    last = stages()[-1].part(Work(work.material, range(16), "")).run(Setting("toy"))
    assert "'neurons' was not measured" in last["missing"]


def test_which_facts_are_studied() -> None:
    """As many of each answer, one a subject; or the reason."""
    material = Material(trained_model(), made(), Facts(()), limit=10)
    found = gate.part(material).run(Setting("toy"))
    assert found["known"] == found["n"] == 16 and found["classes"] == {"red": 5, "blue": 5} and found["passed"]
    measured = gate.measure(material.model, material.asked)[1]
    assert gate.choose(material, range(16), measured, (17, 3))[1] == "the model knows 16 of these facts, 17 are needed"
    assert "0 answers have 9" in gate.choose(material, range(16), measured, (8, 9))[1]
    guessing = replace(measured, made_up=16)
    assert "gate is not passed" in gate.choose(material, range(16), guessing, (8, 3))[1]


def test_what_is_asked(tmp_path: Path) -> None:
    """One shot of each answer by default, which favours none; fewer shots show rare answers; rare answers are left."""
    rows = [(f"Zab{n} Kel", ANSWERS[n % 2]) for n in range(12)] + [("Tor Min", "grey")]
    path = tmp_path / "facts.tsv"
    path.write_text("".join(f"{subject}\t{answer}\n" for subject, answer in rows))
    template = "{subject} likes"
    asked = asked_of(path, template, least=4)
    assert [shot.answer for shot in asked.shots] in (["red", "blue"], ["blue", "red"]) and len(asked) == 10
    assert all(fact.prompt.count("likes") == 3 and fact.prompt.endswith(f"{fact.subject} likes") for fact in asked)
    assert asked_of(path, template, 0, least=4)[0].prompt == "Zab0 Kel likes"
    assert [shot.answer for shot in asked_of(path, template, 1, least=4).shots] == ["grey"]
    assert len(asked_of(path, template, 4, least=4).shots) == 4
    with pytest.raises(InputError, match="at least two answers must have 7 facts; the most frequent"):
        asked_of(path, template, least=7)
    given = opposites()
    assert all(fact.prompt[fact.start : fact.end] == fact.subject for fact in given) and len(given) > 30
