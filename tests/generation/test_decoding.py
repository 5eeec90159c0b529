"""Beam search against a search that tries everything, and against one that recomputes `forward` at every step."""

import itertools
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from glassformer.errors import InputError
from glassformer.generation.decoding import beam_search, greedy
from glassformer.generation.search import Hypothesis
from glassformer.models.config import Config, Learned
from glassformer.models.encoder_decoder import EncoderDecoder

EOS = 2


@dataclass(frozen=True)
class TableConfig:
    vocab_size: int = 6
    max_length: int = 60
    pad_id: int = 0
    bos_id: int = 1
    eos_id: int = EOS


class TableState:
    def __init__(self, sources: Tensor) -> None:
        self.sources, self.length, self.selected = sources, 0, 0

    def select(self, rows: Tensor) -> None:
        self.sources = self.sources[rows]
        self.selected += 1


class TableNetwork(nn.Module):
    """Logits from a table of [first source id, position, last id]: all of the seam and nothing else."""

    def __init__(self, config: TableConfig = TableConfig(), sources: int = 20, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        generator = torch.Generator().manual_seed(seed)
        shape = (sources, config.max_length, config.vocab_size, config.vocab_size)
        self.table = torch.randn(shape, generator=generator) * 2
        self.rows_stepped: list[int] = []

    def start(self, source: Tensor, capacity: int) -> TableState:
        self.capacity = capacity
        self.state = TableState(source[:, 0])
        return self.state

    def step(self, ids: Tensor, lengths: Tensor | None, state: TableState) -> Tensor:
        assert lengths is None and ids.shape == (len(state.sources), 1) and state.length < self.capacity
        assert not self.training and not torch.is_grad_enabled()
        state.length += 1
        self.rows_stepped.append(len(ids))
        return self.table[state.sources, state.length - 1, ids[:, 0]]


def everything(network: TableNetwork, source: int, longest: int, penalty: float) -> list[tuple[tuple[int, ...], float]]:
    """All outputs of at most `longest` tokens that end with </s>, the best first, with their scores."""
    logprobs = network.table.log_softmax(-1)
    found = []
    for length in range(longest):
        for words in itertools.product(range(3, network.config.vocab_size), repeat=length):
            ids = (*words, EOS)
            total = sum(float(logprobs[source, t, a, b]) for t, (a, b) in enumerate(zip((1, *ids), ids, strict=False)))
            found.append((ids, total / ((5 + len(ids)) / 6) ** penalty))
    return sorted(found, key=lambda pair: -pair[1])


@torch.no_grad()
def recomputed(network: EncoderDecoder, source: Tensor, beam: int, penalty: float, longest: int) -> list[Hypothesis]:
    """Beam search for one source without cache or batch of sources: every hypothesis runs through `forward` anew."""
    alive: list[tuple[list[int], list[float]]] = [([], [])]
    pool: list[Hypothesis] = []
    for length in range(1, longest + 1):
        grown = []
        logits = network(source.expand(len(alive), -1), torch.tensor([[1, *ids] for ids, _ in alive])).logits[:, -1]
        for (ids, logprobs), row in zip(alive, logits.log_softmax(-1).tolist(), strict=True):
            for token, logprob in enumerate(row):
                if token > 1:
                    grown.append((ids + [token], logprobs + [logprob]))
        grown.sort(key=lambda pair: -sum(pair[1]))
        for ids, logprobs in grown[:beam]:
            if ids[-1] == EOS or length == longest:
                score = sum(logprobs) / ((5 + length) / 6) ** penalty
                pool.append(Hypothesis(tuple(ids), score, tuple(logprobs), ids[-1] == EOS))
        alive = [pair for pair in grown if pair[0][-1] != EOS][:beam]
        if len(pool) >= beam:
            break
    return sorted(pool, key=lambda hypothesis: (not hypothesis.finished, -hypothesis.score))


def assert_same(found: list[Hypothesis], wanted: list[Hypothesis]) -> None:
    assert [h.ids for h in found] == [h.ids for h in wanted]
    assert [h.finished for h in found] == [h.finished for h in wanted]
    for one, other in zip(found, wanted, strict=True):
        assert one.score == pytest.approx(other.score, abs=1e-4)
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)


def small_network(**changes: object) -> EncoderDecoder:
    """Random weights, the positions strong enough that outputs differ, change as they go on, and end."""
    torch.manual_seed(2)
    shape = {"d_model": 16, "n_heads": 2, "d_ff": 24, "n_encoder_layers": 1, "n_decoder_layers": 2, "tie_head": False}
    network = EncoderDecoder(Config(14, max_length=40, positions=Learned(), **{**shape, **changes}))  # type: ignore[arg-type]
    with torch.no_grad():
        network.head.weight.normal_(std=0.7)
        network.decoder.embedding.position.normal_(std=3)
    return network.eval()


def some_sources(lengths: list[int]) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    rows = [torch.randint(4, 14, (n,), generator=generator) for n in lengths]
    return nn.utils.rnn.pad_sequence(rows, batch_first=True)


@pytest.mark.parametrize("penalty", [0.0, 0.6, 1.0, -0.5])
def test_an_exhaustive_beam_finds_the_best_of_all(penalty: float) -> None:
    network = TableNetwork().eval()
    source = torch.arange(5)[:, None] + 4
    found = beam_search(network, source, beam=200, n_best=40, length_penalty=penalty, max_length=5)
    for row, hypotheses in enumerate(found):
        wanted = everything(network, row + 4, 5, penalty)[:40]
        assert [h.ids for h in hypotheses] == [ids for ids, _ in wanted]
        assert [h.score for h in hypotheses] == pytest.approx([score for _, score in wanted], abs=1e-4)


@pytest.mark.parametrize("beam", [1, 2, 4])
@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_cached_equals_recomputed(beam: int, penalty: float) -> None:
    """A batch of unequal lengths, with caches, gives each source what a search of its own without them gives."""
    network = small_network()
    lengths = [3, 9, 1, 6, 12, 5]
    source = some_sources(lengths)
    found = beam_search(network, source, beam=beam, n_best=beam, length_penalty=penalty)
    assert len({len(hypotheses[0].ids) for hypotheses in found}) > 1  # else nobody left early
    for row, n, hypotheses in zip(source, lengths, found, strict=True):
        longest = min(2 * n + 50, network.config.max_length)
        assert_same(hypotheses, recomputed(network, row[:n], beam, penalty, longest)[:beam])


def test_cut_off_where_nothing_ends() -> None:
    network = small_network()
    source = some_sources([4, 2])
    for row, hypotheses in zip(source, beam_search(network, source, beam=3, n_best=3, max_length=3), strict=True):
        assert_same(hypotheses, recomputed(network, row[row != 0], 3, 1.0, 3)[:3])
    endless = TableNetwork().eval()
    endless.table[..., EOS] = -50.0
    (hypotheses,) = beam_search(endless, torch.tensor([[4]]), beam=2, n_best=2, max_length=7)
    assert [h.finished for h in hypotheses] == [False, False]
    assert [len(h.ids) for h in hypotheses] == [7, 7]


def test_finished_come_before_cut_off() -> None:
    network = TableNetwork().eval()
    network.table[..., EOS] -= 4.0
    for hypotheses in beam_search(network, torch.arange(20)[:, None], beam=4, n_best=4, max_length=4):
        finished = [h.finished for h in hypotheses]
        assert finished == sorted(finished, reverse=True)
        for group in (True, False):
            scores = [h.score for h in hypotheses if h.finished == group]
            assert scores == sorted(scores, reverse=True)


def test_without_a_limit_a_source_may_give_twice_its_length_plus_fifty() -> None:
    network = TableNetwork(TableConfig(max_length=100)).eval()
    network.table[..., EOS] = -50.0
    source = torch.tensor([[4, 5, 0, 0], [4, 5, 6, 7]])
    assert [len(h.ids) for h in greedy(network, source)] == [54, 58]


@pytest.mark.parametrize("beam", [1, 4])
def test_batching_changes_nothing(beam: int) -> None:
    network = small_network()
    lengths = [3, 9, 1, 6, 12, 5, 7, 2, 2, 10]
    source = some_sources(lengths)
    together = beam_search(network, source, beam=beam, n_best=beam)
    for row, n, hypotheses in zip(source, lengths, together, strict=True):
        assert_same(hypotheses, beam_search(network, row[None, :n], beam=beam, n_best=beam)[0])


def test_greedy_takes_the_most_probable_token() -> None:
    network = small_network()
    source = some_sources([5, 3])
    for row, hypothesis in zip(source, greedy(network, source, max_length=12), strict=True):
        assert_same([hypothesis], recomputed(network, row[row != 0], 1, 1.0, 12))


@pytest.mark.parametrize("beam", [1, 3])
def test_what_begins_a_target_may_end_it(beam: int) -> None:
    """BART's targets begin with </s>; padding is still never said."""
    network = TableNetwork(TableConfig(bos_id=EOS))
    network.table[..., 0] = 9.0
    network.table[:, 3, :, EOS] = 8.0
    for found in beam_search(network, torch.arange(4, 8)[:, None], beam=beam, max_length=10):
        assert found[0].finished and found[0].ids[-1] == EOS
        assert 0 not in found[0].ids and EOS not in found[0].ids[:-1]


def test_the_score_is_the_sum_over_the_penalty_and_ids_end_with_eos() -> None:
    for hypotheses in beam_search(small_network(), some_sources([5, 3]), beam=3, n_best=3, length_penalty=0.6):
        for h in hypotheses:
            assert len(h.ids) == len(h.logprobs)
            assert h.score == pytest.approx(sum(h.logprobs) / ((5 + len(h.ids)) / 6) ** 0.6, abs=1e-4)
            assert (h.ids[-1] == EOS) == h.finished
            assert not {0, 1} & set(h.ids)


def test_exactly_so_many_tokens() -> None:
    for beam in (1, 3):
        (first, second) = beam_search(small_network(), some_sources([5, 3]), beam=beam, min_length=9, max_length=9)
        for h in first + second:
            assert len(h.ids) == 9 and EOS not in h.ids and not h.finished
    (found,) = beam_search(small_network(), some_sources([5]), beam=3, n_best=3, min_length=4)
    assert all(len(h.ids) > 4 for h in found)


def test_sources_that_are_done_leave_the_batch() -> None:
    network = TableNetwork().eval()
    network.table[:10, ..., EOS] = 50.0  # the first ten sources end at once
    beam_search(network, torch.arange(20)[:, None], beam=2)
    assert network.rows_stepped[0] == 20
    assert max(network.rows_stepped[1:]) == 20  # ten sources, two hypotheses each
    assert network.rows_stepped[-1] <= network.rows_stepped[1]


def test_greedy_moves_no_rows_while_nobody_leaves() -> None:
    network = TableNetwork().eval()
    network.table[..., EOS] = -50.0
    greedy(network, torch.arange(6)[:, None], max_length=8)
    assert network.state.selected == 0


def test_a_tiny_vocabulary_gives_what_there_is() -> None:
    network = TableNetwork(TableConfig(vocab_size=4)).eval()
    (found,) = beam_search(network, torch.tensor([[3]]), beam=5, n_best=5, max_length=3)
    assert {h.ids for h in found} == {(2,), (3, 2), (3, 3, 2), (3, 3, 3)}
    only_end = TableNetwork(TableConfig(vocab_size=3)).eval()
    (found,) = beam_search(only_end, torch.tensor([[1]]), beam=2, n_best=2)
    assert [h.ids for h in found] == [(2,)]


def test_the_mode_of_the_network_comes_back() -> None:
    network = small_network(dropout=0.5)
    wanted = greedy(network, some_sources([5]))
    network.train()
    assert greedy(network, some_sources([5])) == wanted
    assert network.training and network.decoder.training


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"beam": 0}, "'beam' must be at least 1"),
        ({"beam": 2, "n_best": 3}, "'n_best' must be from 1 to the beam"),
        ({"max_length": 41}, "'max_length' must be from 1 to the model's 40 positions, got 41"),
        ({"max_length": 3, "min_length": 4}, "'min_length' must be from 0 to 3"),
    ],
)
def test_settings_that_cannot_hold(settings: dict[str, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        beam_search(small_network(), some_sources([5]), **settings)  # type: ignore[arg-type]


def test_a_broken_network_is_an_error() -> None:
    network = small_network()
    with torch.no_grad():
        network.head.weight[5] = float("nan")
    with pytest.raises(InputError, match="not numbers"):
        beam_search(network, some_sources([5]))
