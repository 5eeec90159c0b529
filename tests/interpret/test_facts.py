"""Facts: files of four kinds, shots that give nothing away, pairs, made-up names, and what a model knows."""

import json
import math
import os
from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from generation.small_decoders import byte_level, decoder
from tasks.small_models import model_of
from tasks.small_writers import reader, writer

from glassformer.errors import InputError
from glassformer.interpret.facts import Fact, Facts, facts
from glassformer.interpret.gate import answer_ids, next_tokens
from glassformer.interpret.made_up import made_up_name
from glassformer.interpret.shots import gives_away
from glassformer.tasks.model import Model
from glassformer.text.pipeline import TextPipeline
from glassformer.text.tokenizer import Tokenizer

SHARED = Path(os.environ.get("GLASSFORMER_SHARED", Path(__file__).parents[3] / "shared")) / "data"
TEMPLATE = "{subject} was made by"


def table(path, rows):
    path.write_text("".join(f"{subject}\t{answer}\n" for subject, answer in rows), encoding="utf-8")
    return path


def made(n=12, answers=("Acme", "Bolt", "Cora"), relation="maker"):
    """Facts about T0, T1 and so on, the answers in turn."""
    rows = [(f"T{i}", answers[i % len(answers)]) for i in range(n)]
    return Facts(tuple(Fact(s, s, relation, f"{s} was made by", (a,)) for s, a in rows))


# --- A fact -----------------------------------------------------------------------------------------------------------


def test_a_subject_is_found_where_it_stands_last_as_a_word():
    assert Fact("1", "Ann", "r", "Ann and Ann's plan was announced by", ("x",)).start == 8
    assert Fact("1", "ann", "r", "the ann was announced by", ("x",)).start == 4
    assert Fact("1", "nounc", "r", "the ann was announced by", ("x",)).start == 14
    fact = Fact("1", "Ann", "r", "Ann and Ann's plan was announced by", "x", start=0)
    assert (fact.start, fact.end, fact.answers, fact.answer) == (0, 3, ("x",), "x")


@pytest.mark.parametrize(
    ("subject", "prompt", "answers", "start"),
    [("Bob", "Ann is", ("x",), -1), ("Ann", "Ann is", ("x",), 2), ("Ann", "Ann is", (), -1), ("", "Ann", ("x",), -1)],
)
def test_a_fact_without_its_subject_or_answer_is_refused(subject, prompt, answers, start):
    with pytest.raises(InputError, match="fact 'f'"):
        Fact("f", subject, "r", prompt, answers, start)


# --- Files ------------------------------------------------------------------------------------------------------------


def test_json_lines_come_back_as_they_were_saved(tmp_path):
    found = Facts((*made(4), Fact("ü", "Zoë", "r", "Zoë and Zoë", ("é", "e"), start=0)))
    again = facts(found.save(tmp_path / "new" / "facts.jsonl"))
    assert again == found
    assert list(again) == list(found)
    assert again[4].start == 0


def test_relations_known_facts_and_tables_say_the_same(tmp_path):
    rows = [("Kodo", "Acme"), ("Lumi", "Bolt")]
    relation = {"name": "maker", "prompt_templates": ["{} was made by", "By:"], "samples": []}
    relation["samples"] = [{"subject": s, "object": a} for s, a in rows]
    (tmp_path / "relation.json").write_text(json.dumps(relation, indent=1))
    known = [
        {"known_id": i, "subject": s, "attribute": a, "prompt": f"{s} was made by", "relation_id": "maker"}
        for i, (s, a) in enumerate(rows)
    ]
    (tmp_path / "known.json").write_text(json.dumps(known))
    table(tmp_path / "table.tsv", rows)
    table(tmp_path / "headed.tsv", [("name", "maker"), *rows])
    (tmp_path / "wide.tsv").write_text("subject\tyear\tanswer\nKodo\t1\tAcme\nLumi\t2\tBolt\n")
    read = [
        facts(tmp_path / "relation.json"),
        facts(tmp_path / "known.json"),
        facts(tmp_path / "table.tsv", template=TEMPLATE, relation="maker"),
        facts(tmp_path / "headed.tsv", template="{} was made by"),
        facts(tmp_path / "wide.tsv", template=TEMPLATE, relation="maker"),
    ]
    for found in read:
        assert [(f.subject, f.relation, f.prompt, f.answers, f.start) for f in found] == [
            ("Kodo", "maker", "Kodo was made by", ("Acme",), 0),
            ("Lumi", "maker", "Lumi was made by", ("Bolt",), 0),
        ]
    assert read[1][0].id == "0"


def test_what_a_relation_s_file_escaped_twice_is_text(tmp_path):
    samples = [{"subject": "C\\u00f4te", "object": "Bogot\\u00e1"}, {"subject": "São", "object": "a\\b"}]
    (tmp_path / "r.json").write_text(json.dumps({"name": "r", "prompt_templates": ["{} is"], "samples": samples}))
    assert [(f.subject, *f.answers) for f in facts(tmp_path / "r.json")] == [("Côte", "Bogotá"), ("São", "a\\b")]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "x", r"unknown kind of file; facts are read from \.jsonl"),
        ("a.jsonl", "", r"a\.jsonl: the file is empty"),
        (
            "a.jsonl",
            '{"subject": "A", "prompt": "A is", "answers": ["b"]}\n{"subject',
            r"a\.jsonl:2: not a JSON object",
        ),
        ("a.jsonl", '{"prompt": "A is", "answers": ["b"]}', r"a\.jsonl:1: there is no key 'subject'"),
        ("a.jsonl", '{"subject": "A", "prompt": "A is"}', r"a\.jsonl:1: 'answers' must be a list"),
        ("a.jsonl", '{"subject": "A", "prompt": "A is", "answers": []}', r"a\.jsonl:1: 'answers' must be a list"),
        ("a.jsonl", '{"subject": "A", "prompt": "A is", "answers": [1]}', r"a\.jsonl:1: 'answers' must be text"),
        ("a.jsonl", '{"subject": "A", "prompt": "B is", "answers": ["b"]}', r"a\.jsonl:1: .*'A' must be in the prompt"),
        ("a.jsonl", '{"subject": "A", "answers": ["b"]}', r"a\.jsonl:1: there is no prompt; give a template"),
        ("a.jsonl", '{"subject": "A", "prompt": "A", "answers": ["b"], "start": "0"}', r"a\.jsonl:1: 'start'"),
        ("a.json", '{"samples": [\n {"subject": "A",]}', r"a\.json:2: not JSON"),
        ("a.json", '{"facts": []}', r"unknown kind of JSON file"),
        ("a.json", '{"samples": []}', r"the file is empty"),
        ("a.json", '{"samples": [{"subject": "A"}]}', r"sample 1: there is no key 'object'"),
        ("a.json", '{"samples": [3]}', r"sample 1 must be a JSON object"),
        ("a.json", "[]", r"a\.json: the file is empty"),
        ("a.tsv", "A\tb\nC\n", r"a\.tsv:2: expected a subject and an answer"),
        ("a.tsv", "name\tsport\n", r"nothing below"),
    ],
)
def test_broken_files_are_refused_by_name_and_line(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=message):
        facts(tmp_path / name)


def test_what_is_asked_for_must_be_there(tmp_path):
    path = table(tmp_path / "a.tsv", [("Kodo", "Acme")])
    for template in ("was made by", "{subject} {subject}"):
        with pytest.raises(InputError, match=r"must hold \{subject\} once"):
            facts(path, template=template)
    with pytest.raises(InputError, match="no such file"):
        facts(tmp_path / "none.tsv")
    with pytest.raises(InputError, match="at least"):
        facts(path, template=TEMPLATE, limit=0)
    made(3).save(tmp_path / "a.jsonl")
    with pytest.raises(InputError, match="no relation 'makers'. Did you mean 'maker'"):
        facts(tmp_path / "a.jsonl", relation="makers")


def test_repeated_and_doubtful_facts_are_left_out_and_counted(tmp_path):
    rows = [("Kodo", "Acme"), ("Kodo", "Acme"), ("Lumi", "Bolt"), ("Lumi", "Acme"), ("Acme One", "Acme"), ("P", "Bolt")]
    found = facts(table(tmp_path / "a.tsv", rows), template=TEMPLATE)
    assert found.subjects == ["Kodo", "P"]
    assert found.dropped == {"several answers": 2, "listed twice": 1, "answer in the subject": 1}
    with pytest.raises(InputError, match=r"no fact is left; left out: 1 \(answer in the subject\)"):
        facts(table(tmp_path / "b.tsv", rows[4:5]), template=TEMPLATE)


def test_a_limit_draws_by_the_seed_in_the_order_of_the_file(tmp_path):
    path = made(30).save(tmp_path / "a.jsonl")
    some = facts(path, limit=10, seed=3)
    assert len(some) == 10
    assert some.subjects == sorted(some.subjects, key=lambda s: int(s[1:]))
    assert some == facts(path, limit=10, seed=3) != facts(path, limit=10, seed=4)
    assert len(facts(path, limit=99)) == 30


# --- What gives an answer away, and shots -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "answer", "away"),
    [
        ("Windows by microsoft", "Microsoft", True),
        ("NintendoWare", "Nintendo", True),
        ("the Francophone games", "France", True),
        ("Ponies of Wales", "pony", True),
        ("General Electric", "General Motors", True),
        ("The Who", "The Beatles", False),
        ("Miranda", "Iran", False),
        ("the U.S. army", "U.S.", True),
        ("useful", "U.S.", False),
        ("Kodo", "Acme", False),
    ],
)
def test_answers_are_given_away_by_words_and_stems(text, answer, away):
    assert gives_away(text, answer) is away


def of_classes(path, counts):
    return table(path, [(f"S{name[0]}{i}", name) for name, count in counts.items() for i in range(count)])


def test_few_shots_take_the_rarest_answers_and_their_facts_leave(tmp_path):
    path = of_classes(tmp_path / "a.tsv", {"Acme": 9, "Bolt": 2, "Cora": 7, "Dyno": 3})
    found = facts(path, template=TEMPLATE, shots=2, seed=1)
    assert sorted(shot.answer for shot in found.shots) == ["Bolt", "Dyno"]
    assert found.classes == Counter(Acme=9, Cora=7)
    assert found.dropped == {"used as a shot": 2, "answer in the shots": 3}
    before = "".join(f"{shot.subject} was made by {shot.answer}\n" for shot in found.shots)
    assert all(fact.prompt == f"{before}{fact.subject} was made by" for fact in found)
    assert all(fact.prompt[fact.start : fact.end] == fact.subject and fact.start == len(before) for fact in found)
    assert not {shot.subject for shot in found.shots} & set(found.subjects)
    assert found == facts(path, template=TEMPLATE, shots=2, seed=1)
    assert found[:3].shots == found.shots


@pytest.mark.parametrize("shots", [3, 6])
def test_shots_that_show_every_answer_alike_tell_nothing_and_none_is_dropped(tmp_path, shots):
    path = of_classes(tmp_path / "a.tsv", {"Acme": 9, "Bolt": 5, "Cora": 7})
    found = facts(path, template=TEMPLATE, shots=shots)
    assert set(Counter(shot.answer for shot in found.shots).values()) == {shots // 3}
    assert len(found) == 21 - shots
    assert found.dropped == {"used as a shot": shots}


def test_shots_that_would_favour_an_answer_are_refused(tmp_path):
    path = of_classes(tmp_path / "a.tsv", {"Acme": 9, "Bolt": 5, "Cora": 7})
    with pytest.raises(InputError, match="different answers, 3, or a multiple of it, got 4"):
        facts(path, template=TEMPLATE, shots=4)
    with pytest.raises(InputError, match="too few facts for 18 shots"):
        facts(path, template=TEMPLATE, shots=18)


def test_shots_are_of_one_relation(tmp_path):
    path = Facts((*made(6), *made(6, relation="owner").with_made_up_subjects())).save(tmp_path / "a.jsonl")
    with pytest.raises(InputError, match="this file has 2: name one with 'relation'"):
        facts(path, shots=3)
    assert len(facts(path, shots=3, relation="owner")) == 3


def test_no_shot_has_an_answer_in_its_subject(tmp_path):
    rows = [
        ("Acme Bolt", "Cora"),
        ("Kodo", "Cora"),
        ("Lumi", "Acme"),
        ("Mono", "Acme"),
        ("Bolts", "Acme"),
        ("N", "Bolt"),
    ]
    for seed in range(5):
        found = facts(table(tmp_path / "a.tsv", rows), template=TEMPLATE, shots=2, seed=seed)
        assert {shot.subject for shot in found.shots} == {"Kodo", "N"}


# --- Facts as a sequence, pairs and made-up names ---------------------------------------------------------------------


def test_a_part_of_facts_is_facts():
    found = made(9)
    assert isinstance(found[2:5], Facts)
    assert found[2:5].subjects == ["T2", "T3", "T4"]
    assert found[-1].subject == "T8"
    assert found.take([3, 0]).subjects == ["T3", "T0"]
    assert found.where(answer="Bolt").subjects == ["T1", "T4", "T7"]
    assert found.where(lambda fact: fact.subject > "T6", answer=("Bolt", "Cora")).subjects == ["T7", "T8"]
    assert len(found.where(relation="owner")) == 0
    assert found[:7].frequent(3).subjects == ["T0", "T3", "T6"]
    assert len(found.frequent(4)) == 0
    assert found.labels == found.answers == ["Acme", "Bolt", "Cora"] * 3
    assert found.classes == Counter(Acme=3, Bolt=3, Cora=3)
    assert found.prompts[1] == "T1 was made by"
    assert len({found, made(9)}) == 1


def test_swapped_facts_have_another_answer_and_the_same_relation():
    found = Facts((*made(12), *made(12, answers=("Rex", "Sol"), relation="owner")))
    partners = found.swapped(seed=2)
    assert partners == found.swapped(seed=2) != found.swapped(seed=3)
    assert len(set(partners.subjects)) > 6
    for fact, other in zip(found, partners, strict=True):
        assert (other.relation == fact.relation) and (other.answers != fact.answers) and other in found.items
    with pytest.raises(InputError, match="one answer"):
        made(4, answers=("Acme",)).swapped()


def test_swapped_facts_have_subjects_of_as_many_tokens():
    subjects = ["man", "a man", "a blue man", "bike", "the bike", "the blue bike", "in a blue bike on road"]
    answers = ["x", "x", "x", "y", "y", "y", "y"]
    tokenizer = Tokenizer.train(["in the a blue man bike on road rides"], "word", min_frequency=1)
    found = Facts(tuple(Fact(s, s, "r", f"man , {s} rides", (a,)) for s, a in zip(subjects, answers, strict=True)))
    partners = found.swapped(tokenizer=tokenizer)
    assert partners.subjects[:6] == subjects[3:6] + subjects[:3]
    assert partners.subjects[6] == "a blue man"  # of other answers the nearest in length


def test_swapped_facts_are_told_in_the_same_words_where_that_can_be():
    def of(i, answer, text):
        return Fact(f"{i}", f"T{i}", "r", text.format(f"T{i}"), (answer,))

    texts = ("{} is by", "By whom is {}? By")
    found = Facts((*(of(i, "xy"[i % 2], texts[i // 2 % 2]) for i in range(20)), of(20, "x", "{} was by")))
    for seed in range(5):
        for fact, other in zip(found[:20], found.swapped(seed), strict=False):
            assert fact.prompt.replace(fact.subject, "") == other.prompt.replace(other.subject, "")
        assert found.swapped(seed)[20].answer == "y"  # nobody else is told in these words


def test_made_up_names_have_the_shape_of_the_real_ones():
    for name in ("Michael Jordan", "O'Neal, Shaquille", "DeMarcus van der 76ers", "A. J. Burnett", "Čović"):
        found = made_up_name(name, 0)
        assert found == made_up_name(name, 0) != made_up_name(name, 1)
        assert [c.isupper() for c in found] == [c.isupper() for c in name]
        assert [c.isalpha() for c in found] == [c.isalpha() for c in name]
        assert len(found.split()) == len(name.split())
        assert not set(found.casefold().split()) & {word for word in name.casefold().split() if len(word) > 2}
    assert all(made_up_name("Ma", seed, answers=["Lo", "Ta"]) not in ("Lo", "Ta") for seed in range(200))


def test_made_up_facts_keep_all_but_the_name(tmp_path):
    found = facts(made(9).save(tmp_path / "a.jsonl"), shots=3)
    made_up = found.with_made_up_subjects(seed=1)
    assert made_up == found.with_made_up_subjects(seed=1)
    for fact, other in zip(found, made_up, strict=True):
        assert (other.id, other.answers, other.relation, other.start) == (
            fact.id, fact.answers, fact.relation, fact.start,
        )  # fmt: skip
        assert other.prompt == fact.prompt[: fact.start] + other.subject + fact.prompt[fact.end :]
    twice = Facts((Fact("1", "Kodo", "r", "Kodo? Kodo was made by", ("Acme",)),)).with_made_up_subjects()
    assert "Kodo" not in twice[0].prompt
    assert twice[0].prompt.count(twice[0].subject) == 2


# --- What a model knows -----------------------------------------------------------------------------------------------

WORDS = ["man", "blue", "shirt", "rides", "bike", "road", "dog", "runs", "two", "women", "eat"]


@pytest.fixture(scope="module")
def model() -> Model:
    """A decoder with random weights and a vocabulary of words; some guesses are special tokens."""
    tokenizer = Tokenizer.train([" ".join([*WORDS, "a", "the"])], "word", min_frequency=1)
    network = decoder(rotary=True, vocab_size=tokenizer.vocab_size)
    return Model(network, tokenizer, TextPipeline(), "generation")


@cache
def guess(model, prompt):
    """The likeliest next token of one prompt, from the logits of the whole network."""
    with torch.no_grad():
        return int(model(prompt).logits[0, -1].argmax())


def asked(model, right_in):
    """Facts of which those whose number is in `right_in` have the model's own guess as their answer."""
    items = []
    for i, (first, second) in enumerate((a, b) for a in WORDS for b in WORDS[::2] if a != b):
        prompt = f"a {first} {second} the" if i % 3 else f"{first} {second}"
        word = model.tokenizer.decode([guess(model, prompt)])
        if word in WORDS:
            other = next(w for w in WORDS[i % 7 :] if w != word)
            items.append(Fact(str(i), first, "r", prompt, (word if len(items) in right_in else other,), -1))
    return Facts(tuple(items))


def test_known_facts_are_those_that_the_network_says(model):
    right_in = set(range(0, 200, 3))
    found = asked(model, right_in)
    known = found.known(model, batch_size=7)
    wanted = [row for row, fact in enumerate(found) if row in right_in]
    assert len(found) > 15
    assert list(known) == [found[row] for row in wanted]
    gate = known.gate
    assert gate is not None
    assert (gate.n, gate.known, gate.ambiguous) == (len(found), len(wanted), 0)
    assert gate.accuracy == len(wanted) / len(found)
    # Wilson's interval holds the shares p with (accuracy - p)² ≤ z² p (1 - p) / n
    for end in (gate.interval.low, gate.interval.high):
        assert math.isclose(abs(gate.accuracy - end), 1.959964 * math.sqrt(end * (1 - end) / gate.n), rel_tol=1e-5)
    shares = [
        np.mean([row in right_in for row, fact in enumerate(found) if fact.answer == answer])
        for answer in found.classes
    ]
    assert math.isclose(gate.balanced, float(np.mean(shares)), rel_tol=1e-12)
    draw, hits = np.random.default_rng(7), [row in right_in for row in range(len(found))]
    of_class = [[hits[row] for row, fact in enumerate(found) if fact.answer == a] for a in found.classes]
    means = [np.mean([draw.choice(some, len(some)).mean() for some in of_class]) for _ in range(800)]
    low, high = np.quantile(means, [0.025, 0.975])
    assert abs(gate.balanced_interval.low - low) < 0.04
    assert abs(gate.balanced_interval.high - high) < 0.04
    assert gate.majority == max(found.classes.values()) / len(found)
    passed = [
        guess(model, made_up.prompt) == model.tokenizer.encode(made_up.answer)[0]
        for made_up in found.with_made_up_subjects()
    ]
    assert gate.made_up == sum(passed)
    assert sum(known for known, _ in gate.classes.values()) == gate.known
    assert f"{gate.known} of {gate.n} facts known" in str(gate)


def test_the_gate_passes_only_above_chance_and_made_up_names(model):
    found = asked(model, set(range(1000)))
    gate = found.known(model).gate
    assert gate is not None
    assert gate.accuracy == 1
    high = max(gate.majority, gate.made_up_share, gate.made_up_balanced)
    assert gate.passed == (gate.balanced_interval.low > high)
    one = found.where(answer=found[0].answer).known(model).gate
    assert one is not None
    assert not one.passed  # one answer for all is no knowledge
    assert "not passed" in str(one)


def test_a_model_that_knows_nothing_gives_no_facts_and_says_so(model):
    found = asked(model, set())
    known = found.known(model)
    assert len(known) == 0
    assert known.gate is not None
    assert known.gate.known == 0
    assert not known.gate.passed
    assert str(known.gate).startswith(f"0 of {len(found)} facts known: 0.0 % (0.0 to ")


def test_answers_that_begin_alike_are_not_asked(model):
    answers = ("blue man", "blue dog", "bike", "road")
    items = [Fact(str(i), "man", "r", f"{'a ' * (i % 5 + 1)}man", (answers[i % 4],)) for i in range(12)]
    items += [Fact("x", "man", "other", "the man", ("blue dog",))]  # alone in its relation
    known = Facts(tuple(items)).known(model)
    assert known.gate is not None
    assert (known.gate.n, known.gate.ambiguous) == (7, 6)
    assert known.dropped == {"begins like another answer": 6}
    none = Facts(tuple(items[:2])).known(model)
    assert none.gate is not None
    assert (len(none), none.gate.n, none.gate.passed) == (0, 0, False)
    assert "answers of all 2 begin alike" in str(none.gate)


def test_only_a_decoder_is_asked(model):
    two_texts = model_of(Tokenizer.train(["a man"], "word", min_frequency=1), TextPipeline())
    for other in (two_texts, reader(None)):
        with pytest.raises(InputError, match="give a decoder"):
            made(3).known(other)
    with pytest.raises(InputError, match="no facts"):
        Facts(()).known(model)


def test_the_first_token_of_an_answer_is_the_one_that_stands_after_the_prompt():
    facts_of = [
        Fact("1", "a man", "r", "a man rides", ("the bike",)),
        Fact("2", "a man", "r", "a man rides ", ("bike",)),
    ]
    tokenizer = byte_level()
    with_space = answer_ids(writer(), facts_of[:1])
    assert with_space == [tokenizer.encode(" the bike")[0]]
    assert tokenizer.encode("the bike")[0] != with_space[0]
    # "rides " ends with a token for the space, which " bike" would take: the prompt does not stay as it is
    with pytest.raises(InputError, match=r"fact '2': the tokens of its prompt must stay"):
        answer_ids(writer(), [Fact("2", "man", "r", "a man rides  ", ("bike",))])
    bpe = Tokenizer.train(["a man rides the bike , the man eats"] * 3, "bpe", vocab_size=60, min_frequency=1)
    own = Model(decoder(rotary=True, vocab_size=bpe.vocab_size), bpe, TextPipeline(), "generation")
    assert answer_ids(own, facts_of[:1]) == [bpe.encode("a man rides the bike")[len(bpe.encode("a man rides"))]]


def test_next_tokens_do_not_depend_on_the_batch():
    model, prompts = writer(), ["a man", "a man in blue", "the bike on the road", "women eat"]
    assert next_tokens(model, prompts, 2) == [guess(model, prompt) for prompt in prompts] == next_tokens(model, prompts)


def test_a_model_reads_facts_as_their_prompts(model):
    found = Facts(tuple(Fact(w, w, "r", f"a {w} the", ("x",)) for w in WORDS[:3]))
    assert torch.equal(model(found).logits, model(found.prompts).logits)
    assert torch.equal(model(found[0]).logits, model(found[0].prompt).logits)
    assert model.generate(found[0], max_new_tokens=3) == model.generate(found[0].prompt, max_new_tokens=3)


# --- Real files -------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not (SHARED / "relations").is_dir(), reason="the relations and known facts are not here")
def test_real_files_are_read_whole():
    company = facts(SHARED / "relations/factual/product_by_company.json", template="{subject} was created by", shots=4)
    assert len(company) == 522 - sum(company.dropped.values())
    assert len({shot.answer for shot in company.shots}) == 4
    assert not any(fact.answer in company[0].prompt for fact in company)
    sports = facts(SHARED / "relations/factual/person_plays_pro_sport.json", shots=5)
    assert sports.dropped == {"used as a shot": 5}
    known = facts(SHARED / "rome_known_1000/known_1000.json")
    assert len(known) + sum(known.dropped.values()) == 1209
    athletes = facts(SHARED / "sports_players/athletes_unique.tsv", template="{} plays the sport of", shots=3, limit=50)
    assert (athletes[0].relation, len(athletes)) == ("sport", 50)
