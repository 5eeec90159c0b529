"""`glassformer generate`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from processes import Finished, Glassformer, run_inside

import glassformer as gf
from glassformer.cli.generate import PORTION, read_schema
from glassformer.errors import InputError
from glassformer.generation.contrast import ContextAware, Dola

PROMPTS = ["a dog", "a man reads", "zwei"]


@pytest.fixture(scope="module")
def model(tiny_decoder: Path) -> gf.Model:
    return gf.load(tiny_decoder)


def run(folder: Path, *arguments: object, stdin: bytes = b"", tokens: int = 12) -> Finished:
    return run_inside("generate", "--model", folder, "--max-new-tokens", tokens, *arguments, stdin=stdin)


def records(done: Finished) -> list[dict]:
    assert done.code == 0, done.err
    return [json.loads(line) for line in done.out.split("\n")[:-1]]


def test_one_text_goes_to_stdout_and_nothing_else(
    tiny_decoder: Path, model: gf.Model, glassformer: Glassformer
) -> None:
    done = glassformer("generate", "--model", tiny_decoder, "--max-new-tokens", 12, "a dog")
    assert (done.code, done.err) == (0, "")
    assert done.out == model.generate("a dog", max_new_tokens=12).text + "\n"


def test_a_prompt_comes_from_an_argument_a_line_or_the_whole_input(tiny_decoder: Path, model: gf.Model) -> None:
    given = run(tiny_decoder, "a dog")
    assert given.out == run(tiny_decoder, stdin=b"a dog\n").out == run(tiny_decoder, stdin=b"a dog").out
    assert run(tiny_decoder, "--echo", "a dog").out == "a dog" + given.out
    whole = run(tiny_decoder, "--whole-input", stdin=b"a dog\n\nruns\n")
    assert whole.out == model.generate("a dog\n\nruns", max_new_tokens=12).text + "\n"
    assert run(tiny_decoder, stdin=b"") == Finished(0, "", "")


def test_several_texts_stand_under_their_prompts(tiny_decoder: Path, model: gf.Model) -> None:
    texts = [result.text for result in model.generate(PROMPTS, max_new_tokens=12)]
    wanted = "\n".join(f"==> {n}: {p} <==\n{t}\n" for n, (p, t) in enumerate(zip(PROMPTS, texts, strict=True), 1))
    assert run(tiny_decoder, *PROMPTS).out == wanted
    assert run(tiny_decoder, stdin="\n".join(PROMPTS).encode()).out == wanted


def test_n_lines_in_are_n_records_out(tiny_decoder: Path, model: gf.Model) -> None:
    found = records(run(tiny_decoder, "--json", "--logprobs", 2, stdin=("\n".join(PROMPTS) + "\n").encode()))
    for number, (record, prompt, wanted) in enumerate(
        zip(found, PROMPTS, model.generate(PROMPTS, max_new_tokens=12, logprobs=2), strict=True), 1
    ):
        assert (record["line"], record["prompt"], record["text"]) == (number, prompt, wanted.text)
        assert tuple(record["ids"]) == wanted.ids
        assert record["logprobs"] == pytest.approx(wanted.logprobs)
        assert record["finish_reason"] == "length"
        assert record["prompt_tokens"] == len(model.tokenizer.encode(prompt))
        assert record["seconds_to_first_token"] is None and record["tokens_per_second"] > 0
        assert [len(place) for place in record["top_logprobs"]] == [2] * 12
        assert record["top_logprobs"][0][0]["id"] == record["ids"][0]


def test_a_record_of_one_prompt_says_when_its_first_token_came(tiny_decoder: Path) -> None:
    (alone,) = records(run(tiny_decoder, "--json", "a dog"))
    assert alone["seconds_to_first_token"] > 0 and alone["tokens_per_second"] > 0
    (first, *_) = records(run(tiny_decoder, "--json", *PROMPTS))
    assert (alone["text"], alone["ids"], alone["prompt_tokens"]) == (
        first["text"],
        first["ids"],
        first["prompt_tokens"],
    )


def test_beams_and_their_alternatives(tiny_decoder: Path, model: gf.Model) -> None:
    wanted = model.generate("a dog", max_new_tokens=12, beam=3, n_best=2)
    texts = [wanted.text, wanted.alternatives[0].text]
    (record,) = records(run(tiny_decoder, "--beam", 3, "--n-best", 2, "--json", "a dog"))
    assert [record["text"], record["alternatives"][0]["text"]] == texts
    plain = run(tiny_decoder, "--beam", 3, "--n-best", 2, "a dog").out
    assert plain.startswith(
        f"==> 1, text 1 of 2, score {wanted.score:.4f}: a dog <==\n{texts[0]}\n\n==> 1, text 2 of 2"
    )
    assert run(tiny_decoder, "--beam", 3, "a dog").out == texts[0] + "\n"


def test_a_seed_draws_the_same_whatever_the_batches(tiny_decoder: Path, model: gf.Model) -> None:
    drawn = ["--temperature", 1.5, "--seed", 7, "--json"]
    lines = "\n".join(["a dog"] * (PORTION + 2)).encode()
    texts, again = (
        [record["text"] for record in records(run(tiny_decoder, *drawn, *size, stdin=lines, tokens=3))]
        for size in ([], ["--batch-size", 100])
    )
    assert texts == again and len(set(texts)) > PORTION // 2
    assert texts[0] == model.generate("a dog", max_new_tokens=3, temperature=1.5, seed=7).text
    assert texts[PORTION:] != texts[:2]


def test_stop_strings_and_schemas(tiny_decoder: Path, tmp_path: Path) -> None:
    text = run(tiny_decoder, "a dog").out
    stopped = run(tiny_decoder, "a dog", "--stop", "no such text", "--stop", text[3:5]).out
    assert stopped == text[: text.index(text[3:5])] + "\n"
    pytest.importorskip("llguidance")
    (tmp_path / "schema.json").write_text('{"enum": ["runs", "reads"]}', encoding="utf-8")
    for schema in (tmp_path / "schema.json", '{"enum": ["runs", "reads"]}'):
        assert json.loads(run(tiny_decoder, "a dog", "--json-schema", schema).out) in ("runs", "reads")


def test_contrasts(tiny_decoder: Path, model: gf.Model) -> None:
    prompts, bare = ["a man reads: a dog", "a woman runs: the dog"], ["a dog", "the dog"]
    wanted = model.generate(prompts, max_new_tokens=12, contrast=ContextAware(bare, 3.0))
    without = [part for text in bare for part in ("--without", text)]
    found = records(run(tiny_decoder, "--json", *without, "--weight", 3, *prompts))
    assert [one["text"] for one in found] == [one.text for one in wanted]
    early = model.generate("a dog", max_new_tokens=12, contrast=Dola((0, 1)))
    assert run(tiny_decoder, "--dola", "0,1", "a dog").out == early.text + "\n"
    assert early.text != model.generate("a dog", max_new_tokens=12).text


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["--whole-input", "a dog"], "--whole-input"),
        (["--logprobs", 3, "a dog"], "--json"),
        (["--n-best", 2, "a dog"], "n_best"),
        (["--top-p", 2, "a dog"], "top_p"),
        (["--json-schema", "no-such-file.json", "a dog"], "no-such-file.json"),
        (["--dola", "lwo", "a dog"], "low"),
        (["--dola", "1,99", "a dog"], "99"),
        (["--dola", "low", "--without", "dog", "a dog"], "--without and --dola"),
        (["--without", "dog"], "1 for 0"),
        (["--without", "dog", "--weight", -1, "a dog"], "alpha"),
        (["--without", "a big dog", "a dog"], "longer"),
        (["--temperature", "hot", "a dog"], "--temperature"),
        (["a dog " * 3000], "4096"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_mistake_is_one_line(tiny_decoder: Path, arguments: list[object], hint: str) -> None:
    done = run(tiny_decoder, *arguments)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("error: ") and done.err.count("\n") == 1
    assert hint in done.err


def test_what_stands_before_a_bad_line_is_answered(tiny_decoder: Path) -> None:
    done = run(tiny_decoder, "--json", stdin=b"a dog\n\xff\n")
    assert done.code == 2 and done.out.count("\n") == 1
    assert "standard input:2" in done.err


def test_a_long_prompt_is_cut_off_on_request(tiny_decoder: Path) -> None:
    done = run(tiny_decoder, "--truncate", "a dog " * 3000)
    assert done.code == 0 and done.out
    assert done.err.startswith("warning: ") and "only the last" in done.err


def test_speed_is_told_on_request(tiny_decoder: Path) -> None:
    done = run(tiny_decoder, "--verbose", "a dog")
    assert done.err.startswith("12 tokens in ") and "tokens a second" in done.err
    assert run(tiny_decoder, "--verbose", *PROMPTS).err.startswith("36 tokens in ")


def test_a_schema_is_a_file_or_itself(tmp_path: Path) -> None:
    assert read_schema(' {"type": "object"}') == ' {"type": "object"}'
    (tmp_path / "bad.json").write_bytes(b"\xff")
    with pytest.raises(InputError, match="UTF-8"):
        read_schema(str(tmp_path / "bad.json"))


def test_text_comes_while_it_is_written_and_a_reader_may_leave(tiny_decoder: Path) -> None:
    command = [sys.executable, "-m", "glassformer", "generate", "--model", str(tiny_decoder), "a dog"]
    with subprocess.Popen(
        [*command, "--max-new-tokens", "4000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.read(1) and process.poll() is None
        process.stdout.close()
        assert process.wait(60) == 141
        assert process.stderr.read() == b""
