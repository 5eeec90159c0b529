"""Who may join: what a state takes is what its tensors take, and what is free is what the system says."""

import copy
from pathlib import Path
from typing import Any

import pytest
from generation.small_decoders import byte_level, decoder

from glassformer.errors import InputError
from glassformer.generation.engine import generate
from glassformer.generation.requests import Request
from glassformer.generation.sampling import Sampling
from glassformer.models.config import Banded
from glassformer.serving import admission
from glassformer.serving.admission import Admission, free_bytes, memory_share
from glassformer.serving.api.limits import Limits
from glassformer.serving.batching import Batching
from glassformer.tasks.model import Model
from glassformer.text.pipeline import TextPipeline

POSITIONS = 600
SHAPES = [(1, 64), (1, 600), (3, 128), (16, 600), (2, 64)]


def network(kind: str) -> Any:
    changes: dict[str, Any] = {"attention": Banded(width=100)} if kind == "banded" else {}
    return decoder(kind == "rotary", max_length=POSITIONS, **changes)


def request(length: int, new: int = 10) -> Request:
    return Request((1,) * length, new)


@pytest.mark.parametrize("kind", ["learned", "rotary", "banded"])
def test_bytes_are_those_of_the_tensors(kind: str) -> None:
    net = network(kind)
    rule = Admission(net, 1)
    for rows, positions in SHAPES:
        assert rule.nbytes(rows, positions) == net.start(rows, positions).nbytes


def test_bytes_of_half_the_numbers() -> None:
    net = copy.deepcopy(network("learned")).bfloat16()
    assert Admission(net, 1).nbytes(2, 128) == net.start(2, 128).nbytes == network("learned").start(1, 128).nbytes


def test_positions_come_in_steps_and_end_with_the_model() -> None:
    rule = Admission(network("learned"), 1)
    found = [rule.positions(request(*each)) for each in ((1, 10), (60, 4), (60, 5), (500, 4000))]
    assert found == [64, 64, 128, POSITIONS]


def test_a_long_text_makes_all_rows_long() -> None:
    net = network("learned")
    short, long = request(20), request(500)
    rule = Admission(net, Admission(net, 1).nbytes(4, 64))
    assert rule.fits([short] * 3, short) and not rule.fits([short] * 4, short)
    assert not rule.fits([short], long)  # two rows of 512, for which there is room for four of 64
    wide = Admission(net, rule.nbytes(2, 512))
    assert wide.fits([short], long) and wide.fits([long], short) and not wide.fits([short, short], long)


def test_what_a_state_still_holds_counts() -> None:
    net = network("learned")
    short = request(20)
    rule = Admission(net, Admission(net, 1).nbytes(4, 128))
    assert rule.fits([short], short, rows=4, positions=128)
    assert not rule.fits([short], short, rows=5, positions=128)
    assert not rule.fits([short], short, rows=4, positions=192)
    assert rule.fits([], short, rows=16, positions=512)  # alone it gets a state of its own


def test_what_could_never_fit_is_refused() -> None:
    net = network("learned")
    rule = Admission(net, net.start(1, 128).nbytes)
    rule.check(request(100, 28))
    with pytest.raises(InputError, match=r"takes 0\.\d MB.*100 tokens of a prompt and 29 to follow.*--memory"):
        rule.check(request(100, 29))


# --- In a service -----------------------------------------------------------------------------------------------------


class Watch:
    """A logits function that notes how many texts run at once."""

    def __init__(self) -> None:
        self.most, self.batching = 0, None

    def __call__(self, ids: Any, logits: Any) -> Any:
        if self.batching is not None:
            self.most = max(self.most, self.batching.figures.running)
        return logits


def model() -> Model:
    return Model(network("learned"), byte_level(), TextPipeline(), "generate")


@pytest.mark.parametrize(("rows", "positions", "most"), [(1, 512, 1), (2, 512, 2), (4, 64, 1)])
def test_texts_wait_until_there_is_room(rows: int, positions: int, most: int) -> None:
    """Long ones among short ones: all get what they get alone, in order, and no more run than fit."""
    watch, own = Watch(), model()
    sampling = Sampling(functions=(watch,))
    lengths = [490, 10, 480, 470, 10] if positions == 512 else [40] * 5
    memory = Admission(own.network, 1).nbytes(rows, positions) if positions == 512 else own.network.start(1, 64).nbytes
    asked = [Request((3, 5) * (length // 2), 9, sampling, ignore_eos=True, seed=1) for length in lengths]
    with_one = [generate(own.engine(rows=1), [one])[0].ids for one in asked]
    watch.batching = Batching(own, streams=4, memory=memory, prefix_bytes=0)
    try:
        streams = [watch.batching.submit(one) for one in asked]
        found = [tuple(token for event in stream.events() for token in event.ids) for stream in streams]
    finally:
        watch.batching.close(0)
    assert found == with_one
    assert 1 <= watch.most <= most


def test_a_service_refuses_what_could_never_fit() -> None:
    own = model()
    batching = Batching(own, memory=own.network.start(1, 128).nbytes)
    try:
        with pytest.raises(InputError, match="--memory"):
            batching.submit(request(100, 400))
        assert batching.figures.waiting == batching.figures.running == 0
        assert [event for event in batching.submit(request(100, 3)).events()]
    finally:
        batching.close(0)


def test_the_server_says_so_with_a_400() -> None:
    from serving.api_server import serving

    with serving({"a": model(), "b": model()}, Limits(memory=4 * network("learned").start(1, 64).nbytes)) as one:
        batching = one.service.all["b"].batching
        assert batching is not None and batching._admission.most == 2 * network("learned").start(1, 64).nbytes
        with one.client() as client:
            asked = {"model": "a", "prompt": [7] * 20, "max_tokens": 5}
            assert client.post("/v1/completions", json=asked).status_code == 200
            wrong = client.post("/v1/completions", json={**asked, "max_tokens": 500})
            assert wrong.status_code == 400 and "--memory" in wrong.json()["error"]["message"]


# --- The machine ------------------------------------------------------------------------------------------------------


def test_what_is_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal:  9000 kB\nMemAvailable:   3000 kB\n")
    assert admission._available(meminfo) == 3000 * 1024
    assert admission._available(tmp_path / "none") is None
    assert admission._container(tmp_path) is None
    (tmp_path / "memory.current").write_text("700\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert admission._container(tmp_path) is None
    (tmp_path / "memory.max").write_text("1000\n")
    assert admission._container(tmp_path) == 300
    (tmp_path / "memory.stat").write_text("anon 1\ninactive_file 250\n")
    assert admission._container(tmp_path) == 550
    for found, wanted in (((3000, 550), 550), ((3000, None), 3000), ((None, -5), 0)):
        monkeypatch.setattr(admission, "_available", lambda path, given=found: given[0])
        monkeypatch.setattr(admission, "_container", lambda path, given=found: given[1])
        assert free_bytes() == wanted
    monkeypatch.setattr(admission, "free_bytes", lambda device: 6000)
    assert (memory_share(1), memory_share(2), memory_share(0)) == (2000, 1000, 2000)


def test_this_machine_says_something() -> None:
    assert 2**20 < free_bytes() < 2**50
