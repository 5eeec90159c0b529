"""Parts are measured once, say what they could not measure, and end up in one report."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from glassformer.errors import InputError
from glassformer.models.config import ConvolutionalConfig, RecurrentConfig
from glassformer.models.counting import count
from glassformer.models.families import network_class
from glassformer.studies.architectures.families import COLORS, matched
from glassformer.studies.fitting import fit
from glassformer.studies.report import write_report
from glassformer.studies.running import run_parts
from glassformer.studies.sections import claims_of
from glassformer.studies.study import (
    Part,
    Picture,
    Result,
    Setting,
    Table,
    claim,
    matplotlib_figure,
    save_figure,
)
from glassformer.tasks.objectives import seq2seq


class Counted:
    """A part that counts how often it was run."""

    def __init__(self) -> None:
        self.times = 0

    def run(self, setting: Setting) -> Result:
        self.times += 1
        return {"value": setting.pick(1, 2, 3), "drawn": float(torch.rand(()))}

    def draw(self, result: Result, folder: Path) -> Sequence[Picture]:
        figure = matplotlib_figure(2, 2)
        figure.subplots().plot([0, result["value"]])
        return [save_figure(figure, folder, "line", "A line & its <end>.")]

    @property
    def part(self) -> Part:
        return Part(
            "counted",
            "Counting",
            "How many?",
            "By counting.",
            self.run,
            self.draw,
            lambda result: [Table("Values", ("name", "value"), (("value", str(result["value"])),))],
            lambda result: [claim("It is <2>.", "value = 2", str(result["value"]), result["value"] == 2)],
        )


def refuse(setting: Setting) -> Result:
    raise InputError("there is nothing to measure: bring <something>.")


def test_a_part_is_measured_once(tmp_path: Path) -> None:
    counted, said = Counted(), list[str]()
    setting = Setting("quick", say=said.append)
    first = run_parts([counted.part], setting, tmp_path)
    again = run_parts([counted.part], setting, tmp_path)
    assert counted.times == 1 and first[0].result == again[0].result == {"value": 2, "drawn": first[0].result["drawn"]}
    assert "measured before" in said[-1]
    run_parts([counted.part], replace(setting, scale="toy"), tmp_path)
    run_parts([replace(counted.part, version=2)], setting, tmp_path)
    run_parts([counted.part], replace(setting, threads=2), tmp_path)
    assert counted.times == 4


def test_what_a_part_draws_is_its_own(tmp_path: Path) -> None:
    """The caller's random numbers and threads stay; a part's do not depend on what came before."""
    torch.manual_seed(3)
    expected, threads = torch.rand(2)[1], torch.get_num_threads()
    torch.manual_seed(3)
    torch.rand(1)
    first = run_parts([Counted().part], Setting(threads=threads + 1), tmp_path / "a")[0].result
    assert torch.rand(1) == expected and torch.get_num_threads() == threads
    second = run_parts([Counted().part], Setting(threads=threads + 1), tmp_path / "b")[0].result
    assert first == second


def test_the_report_opens_alone_and_tells_all(tmp_path: Path) -> None:
    counted = Counted()
    broken = replace(counted.part, name="broken", title="Broken", run=refuse)
    done = run_parts([counted.part, broken], Setting("quick"), tmp_path)
    page = write_report("A <study>", "First.\n\nSecond.", done, tmp_path, [("threads", "1")])
    text = page.read_text()
    assert "A &lt;study&gt;" in text and "A line &amp; its &lt;end&gt;." in text and "It is &lt;2&gt;." in text
    assert "Not measured: there is nothing to measure: bring &lt;something&gt;." in text
    assert not re.search(r"https?://|<script", text), "the page needs a network or a program"
    sources = re.findall(r'src="([^"]+)"', text)
    assert sources == ["figures/line.png"]
    assert all((tmp_path / source).read_bytes().startswith(b"\x89PNG") for source in sources)
    shown = (tmp_path / "report.md").read_text()
    assert "# A \\<study>\n" in shown and "(figures/line.png)" in shown and "| It is \\<2>. |" in shown
    assert "**Not measured:** there is nothing to measure" in shown
    numbers = json.loads((tmp_path / "report.json").read_text())
    assert numbers["parts"]["counted"]["result"]["value"] == 2
    assert numbers["parts"]["counted"]["claims"][0]["verdict"] == "supported"
    assert (
        numbers["parts"]["broken"]["result"] is None and "nothing to measure" in numbers["parts"]["broken"]["missing"]
    )
    assert not (tmp_path / "parts" / "broken.json").exists(), "what was not measured must be tried again"
    assert claims_of(done[1]) == []


@pytest.mark.parametrize(
    ("holds", "verdict"), [(True, "supported"), (False, "not supported"), (None, "not testable here")]
)
def test_verdicts(holds: bool | None, verdict: str) -> None:
    assert claim("a", "b", "c", holds).verdict == verdict


@pytest.mark.parametrize("parameters", [60_000, 100_000, 500_000])
@pytest.mark.parametrize("layers", [1, 2, 4])
def test_families_have_as_many_parameters(parameters: int, layers: int) -> None:
    configs = matched(parameters, 40, layers=layers)
    assert list(configs) == list(COLORS)
    for config in configs.values():
        with torch.device("meta"):
            held = sum(parameter.numel() for parameter in network_class(config)(config).parameters())
        assert held == count(config).total and abs(held / parameters - 1) <= 0.03


def test_what_cannot_be_matched_is_refused() -> None:
    with pytest.raises(InputError, match="within 3%"):
        matched(200, 4, max_length=8)


class Batch:
    """One pair, copied."""

    def __init__(self) -> None:
        self.source = torch.tensor([[5, 6, 7, 2]] * 4)
        self.target = torch.tensor([[1, 5, 6, 7, 2]] * 4)


@pytest.mark.parametrize(
    "config",
    [RecurrentConfig(10, d_model=16, dropout=0.1), ConvolutionalConfig(10, d_model=16, dropout=0.1)],
    ids=["recurrent", "convolutional"],
)
def test_fitting_learns_and_repeats(config: RecurrentConfig | ConvolutionalConfig) -> None:
    losses, seen = [], list[int]()
    for _ in range(2):
        torch.manual_seed(0)
        network = network_class(config)(config)
        fitted = fit(network, seq2seq, lambda step: Batch(), steps=30, rate=1e-2, after=seen.append)
        losses.append(fitted.losses)
        assert not network.training and len(fitted.norms) == 30
    assert losses[0] == losses[1] and losses[0][-1] < 0.7 * losses[0][0]
    assert seen == [*range(1, 31)] * 2
