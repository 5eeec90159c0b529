"""Beam search that goes on from prompts: against transformers, and against a search of each prompt by itself."""

from pathlib import Path

import pytest
import torch
from generation.small_decoders import END, POSITIONS, decoder
from torch import Tensor

from glassformer.generation.decoding import continue_by_beam
from glassformer.generation.search import Hypothesis
from glassformer.models.decoder import Decoder


@torch.no_grad()
def recomputed(
    network: Decoder, prompt: list[int], beam: int, penalty: float, longest: int, ends: list[int]
) -> list[Hypothesis]:
    """Beam search for one prompt, every hypothesis read anew at every step."""
    alive: list[tuple[list[int], list[float]]] = [([], [])]
    pool: list[Hypothesis] = []
    for length in range(1, longest + 1):
        grown = []
        logits = network(torch.tensor([[*prompt, *ids] for ids, _ in alive])).logits[:, -1]
        for (ids, logprobs), row in zip(alive, logits.log_softmax(-1).tolist(), strict=True):
            grown += [(ids + [token], logprobs + [logprob]) for token, logprob in enumerate(row)]
        grown.sort(key=lambda pair: -sum(pair[1]))
        for ids, logprobs in grown[:beam]:
            if ids[-1] in ends or length == longest:
                score = sum(logprobs) / ((5 + length) / 6) ** penalty
                pool.append(Hypothesis(tuple(ids), score, tuple(logprobs), ids[-1] in ends))
        alive = [pair for pair in grown if pair[0][-1] not in ends][:beam]
        if len(pool) >= beam:
            break
    return sorted(pool, key=lambda hypothesis: (not hypothesis.finished, -hypothesis.score))[:beam]


def prompts_of(lengths: list[int]) -> list[list[int]]:
    draw = torch.Generator().manual_seed(5)
    return [torch.randint(1, 300, (length,), generator=draw).tolist() for length in lengths]


def assert_same(found: list[Hypothesis], wanted: list[Hypothesis]) -> None:
    assert [(one.ids, one.finished) for one in found] == [(one.ids, one.finished) for one in wanted]
    for one, other in zip(found, wanted, strict=True):
        assert one.score == pytest.approx(other.score, abs=1e-4)
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)


@pytest.mark.parametrize("beam", [1, 3])
@pytest.mark.parametrize("n_ends", [0, 1, 40])
def test_a_batch_finds_what_each_prompt_finds_alone(beam: int, n_ends: int) -> None:
    """Unequal prompts, one near the last position, and many tokens that end a text."""
    network, ends = decoder(), list(range(END, n_ends))
    prompts = prompts_of([3, POSITIONS - 2, 17, 1, 9])
    found = continue_by_beam(network, prompts, max_new_tokens=7, eos_ids=ends, beam=beam, n_best=beam)
    for prompt, hypotheses in zip(prompts, found, strict=True):
        longest = min(7, POSITIONS - len(prompt))
        assert_same(hypotheses, recomputed(network, prompt, beam, 1.0, longest, ends))
    if n_ends == 40:
        assert any(one.finished for hypotheses in found for one in hypotheses)


def test_no_room_gives_an_empty_text() -> None:
    full, other = continue_by_beam(decoder(), prompts_of([POSITIONS, 3]), max_new_tokens=4, eos_ids=[END], beam=2)
    assert full == [Hypothesis((), 0.0, (), False)] and len(other[0].ids) == 4
    assert continue_by_beam(decoder(), [[5]], max_new_tokens=0, eos_ids=[END]) == [[Hypothesis((), 0.0, (), False)]]


def test_equals_transformers(tmp_path: Path) -> None:
    """With a length penalty of 0 both rank by the sum of log-probabilities, as long as all texts end."""
    transformers = pytest.importorskip("transformers")
    from glassformer.checkpoints.huggingface import read_network

    torch.manual_seed(0)
    shape = transformers.GPT2Config(vocab_size=60, n_positions=32, n_embd=24, n_layer=2, n_head=2, eos_token_id=7)
    theirs = transformers.GPT2LMHeadModel(shape).eval()
    with torch.no_grad():
        theirs.transformer.wte.weight.normal_(std=0.15)
        theirs.transformer.wpe.weight.normal_(std=0.6)
    theirs.save_pretrained(tmp_path / "gpt2")
    ours = read_network(tmp_path / "gpt2")
    ended, ends = 0, list(range(25))
    for prompt in ([30, 40, 50], [41], [42, 43, 44, 45, 46, 47]):
        ids = torch.tensor([prompt])
        settings = {"num_beams": 4, "num_return_sequences": 3, "max_new_tokens": 20, "length_penalty": 0.0}
        made: Tensor = theirs.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, pad_token_id=7, eos_token_id=ends, **settings
        )
        common = {"beam": 4, "n_best": 3, "length_penalty": 0.0}
        found = continue_by_beam(ours, [prompt], max_new_tokens=20, eos_ids=ends, **common)[0]
        wanted = [row[len(prompt) :].tolist() for row in made]
        padded = [[*one.ids, *[7] * (len(wanted[0]) - len(one.ids))] for one in found]
        ended += sum(one.finished for one in found)
        assert padded == wanted
    assert ended == 9
