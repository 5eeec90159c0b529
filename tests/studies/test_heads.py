"""Patterns over words have known answers, labels are sound, and verdicts follow from the numbers alone."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from glassformer.studies.architectures import heads
from glassformer.studies.architectures.heads.counting import judge
from glassformer.studies.architectures.heads.drawing import shares
from glassformer.studies.architectures.heads.relations import OFFSETS, habits, looked_at, score
from glassformer.studies.architectures.heads.verdicts import beats, difference, in_words
from glassformer.studies.architectures.heads.words import RELATIONS, TRANSLATION, Side, over_words, read_labelled, side
from glassformer.studies.study import Result, Setting
from glassformer.text.pairs import PairBatches
from glassformer.text.tokenizer import Tokenizer

DETERMINERS = {"a", "an", "the", "this", "some", "several", "many", "both", "another"}
PRONOUNS = {"he", "she", "it", "they", "his", "her", "its", "their", "who", "whom", "that"}


@pytest.fixture(scope="module")
def toy() -> Result:
    torch.manual_seed(0)
    result = heads.PART.run(Setting(scale="toy"))
    return json.loads(json.dumps(result, allow_nan=False))


@pytest.mark.slow
def test_toy_run_is_drawn_and_told(toy: Result, tmp_path: Path) -> None:
    pictures = heads.PART.draw(toy, tmp_path)
    assert len(pictures) == 5
    for picture in pictures:
        assert (tmp_path / picture.file).read_bytes().startswith(b"\x89PNG")
        assert picture.caption
    for table in heads.PART.tables(toy):
        assert table.rows and all(len(row) == len(table.columns) for row in table.rows)
    found = heads.PART.claims(toy)
    assert len({each.text for each in found}) == len(found) == 10
    assert [each.verdict for each in found[:2]] == ["not testable here"] * 2  # one seed
    assert [each.verdict for each in found[4:8]] == ["not testable here"] * 4  # MiniLM is left out


def test_patterns_of_the_toy_run(toy: Result) -> None:
    assert set(toy["attention"]) == {"encoder", "decoder", "cross-attention", "untrained"}
    for kind in ("encoder", "cross-attention"):
        shown = toy["shown"][kind]
        pattern = torch.tensor(shown["pattern"])
        assert pattern.shape == (4, 4, len(shown["queries"]), len(shown["keys"]))
        torch.testing.assert_close(pattern.sum(-1), torch.ones(pattern.shape[:-1]), atol=0.02, rtol=0)
    for each in toy["attention"].values():
        assert all(0 <= value <= 1 for layer in each["habits"]["entropy"] for value in layer)


def test_labels_are_sound() -> None:
    sentences = read_labelled()
    counts = {name: sum(len(each.pairs.get(name, ())) for each in sentences) for name in (*RELATIONS, TRANSLATION)}
    assert 60 <= len(sentences) <= 100 and all(count >= 40 for count in counts.values())
    assert len({each.english for each in sentences}) == len(sentences)
    for each in sentences:
        words = [word.lower() for word in each.english]
        for name in RELATIONS:
            for first, second in each.pairs[name]:
                assert first != second and max(first, second) < len(words) - 1  # the last is the full stop
        assert {words[first] for first, _ in each.pairs["determiner-noun"]} <= DETERMINERS
        assert {words[first] for first, _ in each.pairs["pronoun-antecedent"]} <= PRONOUNS
        assert all(second > first for first, second in each.pairs["determiner-noun"])
        assert {first for first, _ in each.pairs["verb-object"]}.isdisjoint(
            first for first, _ in each.pairs["determiner-noun"]
        )
        for german, english in each.pairs.get(TRANSLATION, ()):
            assert german < len(each.german) and english < len(each.english)


def test_tokens_belong_to_words() -> None:
    tokenizer = Tokenizer.train(["ab cd, ab cd."], "character", vocab_size=20, min_frequency=1)
    found = side(tokenizer, ["ab", "cd", ","], [7], [8, 9])
    assert tokenizer.decode(found.ids[1:-2]) == "ab cd,"
    assert found.word_of[0] == -1 and found.word_of[-2:] == [-1, -1]
    assert [found.word_of[place] for place in (1, 2, 4, 5, 6)] == [0, 0, 1, 1, 2]
    assert found.words == 3


def test_over_words_is_mean_from_and_sum_to() -> None:
    queries, keys = Side([1, 2, 3], [0, 0, 1], 2), Side([1, 2, 3, 4], [-1, 0, 1, 1], 2)
    pattern = torch.tensor([[[0.2, 0.4, 0.3, 0.1], [0.0, 0.0, 0.5, 0.5], [1.0, 0.0, 0.0, 0.0]]])
    wanted = torch.tensor([[[0.2, 0.7], [0.0, 0.0]]])
    torch.testing.assert_close(over_words(pattern, queries, keys), wanted)


def test_a_word_does_not_look_at_itself() -> None:
    rows = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.2, 0.7]])
    assert looked_at(rows, None).tolist() == [0, 2]
    assert looked_at(rows, 0).tolist() == [1, 2]
    assert rows[0, 0] == 0.5  # what was given is as it was


def test_habits_of_known_patterns() -> None:
    uniform, sharp = torch.full((4, 4), 0.25), torch.eye(4).roll(1, 1)
    entropy, distance = habits(torch.stack([uniform, sharp])[None], causal=False)
    torch.testing.assert_close(entropy[0], torch.tensor([[1.0] * 4, [0.0] * 4]))
    torch.testing.assert_close(distance[0], torch.tensor([[1.5, 1.0, 1.0, 1.5], [1.0, 1.0, 1.0, 3.0]]))


def test_habits_of_a_causal_pattern_count_what_can_be_seen() -> None:
    pattern = torch.tril(torch.ones(3, 3)) / torch.tensor([[1.0], [2.0], [3.0]])
    entropy, distance = habits(pattern[None, None], causal=True)
    torch.testing.assert_close(entropy[0, 0], torch.ones(2))  # the first query has no choice
    torch.testing.assert_close(distance[0, 0], torch.tensor([0.5, 1.0]))


def test_each_half_is_judged_by_the_choice_of_the_other() -> None:
    halves = [0, 0, 1, 1]
    right = torch.tensor([[1, 0], [1, 0], [0, 1], [0, 1]], dtype=torch.bool)  # a head for each half
    places = torch.zeros(4, len(OFFSETS), dtype=torch.bool)
    places[:3, OFFSETS.index(1)] = True
    found = score(right, places, halves, layers=1)
    assert found["chosen"] == {"heads": [[1, 2], [1, 1]], "offsets": [1, 1]}
    assert (found["both"], found["head_only"], found["offset_only"], found["neither"]) == (0, 0, 3, 1)
    assert found["shares"] == [[0.5, 0.5]]


def test_heads_are_numbered_by_layer() -> None:
    right = torch.zeros(4, 6, dtype=torch.bool)
    right[:, 4] = True
    found = score(right, torch.zeros(4, len(OFFSETS), dtype=torch.bool), [0, 1, 0, 1], layers=3)
    assert found["chosen"]["heads"] == [[3, 1], [3, 1]] and found["head_only"] == 4


class _Echo(torch.nn.Module):
    """Is sure that each token follows itself."""

    class config:
        pad_id = 0

    def forward(self, source: torch.Tensor, target: torch.Tensor) -> Any:
        class output:
            logits = 50.0 * torch.nn.functional.one_hot(target, 8)

        return output


def test_judging_counts_tokens_and_whole_pairs() -> None:
    batches = PairBatches([[4], [4]], [[], [2]], tokens=20)  # targets: <s> </s>, and <s> 2 </s> with </s> = 2
    found = judge(_Echo(), batches)  # type: ignore[arg-type]
    assert found["characters"] == pytest.approx(1 / 3)  # only </s> after 2 is what came before
    assert found["exact"] == 0
    assert found["loss"] == pytest.approx(50 * 2 / 3, rel=1e-4)


def _found(head_only: int, offset_only: int, both: int = 10) -> dict[str, Any]:
    chosen = {"heads": [[1, 2], [3, 4]], "offsets": [1, 1]}
    n = both + head_only + offset_only + 5
    counts = {"n": n, "both": both, "head_only": head_only, "offset_only": offset_only, "neither": 5}
    return {**counts, "chosen": chosen, "shares": [[0.1]]}


def test_a_head_beats_an_offset_beyond_chance() -> None:
    assert beats(_found(30, 2)) and not beats(_found(5, 4)) and not beats(_found(2, 30))
    gap, low, high = difference(_found(30, 2))
    assert gap == pytest.approx(28 / 47) and low < gap < high
    assert shares(_found(30, 2), "head_only")[0] == pytest.approx(40 / 47)
    assert "head 1.2 and 3.4" in in_words(_found(30, 2)) and "offset +1 26%" in in_words(_found(30, 2))


def _result() -> Result:
    """A made-up result in which every claim holds."""
    rows = [
        {"heads": count, "loss": losses, "characters": [0.9, 0.9], "exact": [0.5, 0.5]}
        for count, losses in ((1, [1.2, 1.2]), (2, [1.0, 1.0]), (4, [1.0, 1.0]), (8, [1.2, 1.1]))
    ]
    counts = {"steps": 9, "seeds": 2, "locales": 2, "test_pairs": 5, "d_model": 8, "parameters": 100, "rows": rows}
    relations = {name: _found(30, 2) for name in RELATIONS}

    def kind(entropy: list[float], relations: dict[str, Any]) -> dict[str, Any]:
        return {"habits": {"entropy": [entropy], "distance": [[1.0] * len(entropy)]}} | {
            "sentences": 7,
            "relations": dict(relations),
        }

    attention = {
        "encoder": kind([0.2, 0.8], relations),
        "cross-attention": kind([0.3, 0.4], {TRANSLATION: _found(30, 2)}),
        "untrained": kind([0.9, 0.9], {}),
        "sentence encoder": kind([0.3, 0.4], relations),
    }
    return {"counts": counts, "attention": attention, "shown": {}}


def _verdicts(result: Result) -> list[str]:
    return [each.verdict for each in heads.PART.claims(result)]


def test_every_claim_can_be_supported() -> None:
    assert _verdicts(_result()) == ["supported"] * 10


def test_every_claim_can_fail() -> None:
    result = _result()
    result["counts"]["rows"][0]["loss"] = [1.2, 1.04]
    result["counts"]["rows"][3]["loss"] = [1.0, 1.2]
    result["attention"]["encoder"]["habits"]["entropy"] = [[0.5, 0.7]]
    result["attention"]["untrained"]["habits"]["entropy"] = [[0.65, 0.65]]
    for kind in ("encoder", "sentence encoder"):
        result["attention"][kind]["relations"] = {name: _found(5, 4) for name in RELATIONS}
    result["attention"]["cross-attention"]["relations"][TRANSLATION] = _found(5, 4)
    assert _verdicts(result) == ["not supported"] * 10


def test_most_relations_are_three() -> None:
    result = _result()
    result["attention"]["encoder"]["relations"][RELATIONS[0]] = _found(5, 4)
    assert _verdicts(result)[8] == "supported"
    result["attention"]["encoder"]["relations"][RELATIONS[1]] = _found(5, 4)
    assert _verdicts(result)[8] == "not supported"


def test_nothing_is_said_of_one_seed_or_without_the_models() -> None:
    result = _result()
    result["counts"]["seeds"] = 1
    del result["attention"]["sentence encoder"]
    result["attention"]["encoder"]["relations"] = {}
    result["attention"]["cross-attention"]["relations"] = {}
    untold = ["not testable here"]
    assert _verdicts(result) == untold * 2 + ["supported"] * 2 + untold * 6
