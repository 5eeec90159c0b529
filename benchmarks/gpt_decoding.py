"""Generation beside llama.cpp and Hugging Face, on SmolLM2-135M-Instruct as its Q4_1 file has it, in one run.

    python benchmarks/gpt_decoding.py                  # one stream of 128 tokens; llama.cpp and transformers' generate
    python benchmarks/gpt_decoding.py --streams 16     # 16 streams at once; llama-batched-bench
    python benchmarks/gpt_decoding.py --prompt 512     # reading a prompt of 512 tokens; llama-bench

All sides compute with the values of that file: ours in each precision, llama.cpp in the file itself (Q4_1) and in Q4_0,
Q8_0 and BF16 made from it, transformers in fp32. Each works while the others wait, in turns. llama.cpp's programs tell
their own time, without loading and without choosing tokens; ours is measured around `generate`, with everything. One
stream: 128 steps of one token from an empty context on both sides. Perplexity, on the beginning of wikipedia/dev.txt,
says which of our precisions are within 0.5 % of fp32: among those is the best of all.
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import goals
import torch
from goals import best, compared, data_root, row_line
from gpt import PLAIN, WITHIN, Ours, arguments, contenders, hugging_face, llama_kinds, random_ids, usable
from machine import machine_limits
from peers.llama_cpp import KINDS
from rounds import machine_lines, rate, spread, take_turns

FILE_KIND = "llama.cpp Q4_1"
Seconds = dict[str, list[float]]


def one_stream(given: argparse.Namespace) -> dict[str, Any]:
    """Decoding of one stream."""
    ours, llama = contenders(usable(given.precisions), "one"), llama_kinds(given.llama_bin, given.threads, given.kinds)
    quality = perplexities(given, ours)
    first, written = random_ids((1,)), {}
    competitors: dict[str, Callable[[], float]] = {
        name: functools.partial(one.steps, given.tokens) for name, one in llama.items()
    }

    def run_ours(name: str) -> float:
        seconds, written[name] = ours[name].steps(first, given.tokens)
        return seconds

    competitors.update({name: functools.partial(run_ours, name) for name in ours})
    with ExitStack() as stack:
        about = {}
        if not given.no_transformers:
            peer, about = stack.enter_context(hugging_face(given.peer_python, given.threads))

            def run_peer() -> float:
                answer = peer.ask("generate", ids=first, new=given.tokens)
                written["transformers fp32"] = answer["ids"]
                return float(answer["seconds"])

            competitors["transformers fp32"] = run_peer
        seconds = measured(given, competitors)
    rows = decode_rows(seconds, list(ours), list(llama), quality)
    agree = None
    if about and (exact := {"ours fp32", f"ours {PLAIN}"} & set(ours)):
        agree = all(written[name] == written["transformers fp32"] for name in exact)
    return {
        "work": f"decoding, 1 stream, {given.tokens} tokens",
        **told(seconds, given.tokens, rows),
        "perplexity": quality,
        "transformers": about,
        "fp32_same_tokens_as_transformers": agree,
    }


def decode_rows(
    seconds: Seconds, ours: list[str], llama: list[str], quality: Mapping[str, Any] | None
) -> list[dict[str, Any]]:
    """The table of one stream: at the file's own width, the best of all, and against transformers."""
    rows = []
    fine = [
        name for name in ours if quality is None or quality["of"][name] <= quality["of"]["ours fp32"] * (1 + WITHIN)
    ]
    mine, theirs = best(seconds, fine), best(seconds, llama)
    how = "perplexity not measured" if quality is None else "perplexity within 0.5 % of fp32"
    if "ours stored" in ours:
        rows.append({**compared(seconds, "ours stored", FILE_KIND, goals.DECODE_STORED), "note": "the file's width"})
        rows.append({**compared(seconds, "ours stored", theirs), "note": "llama.cpp's best"})
    rows.append({**compared(seconds, mine, FILE_KIND, goals.DECODE_BEST), "note": f"best of all, {how}"})
    rows.append({**compared(seconds, mine, theirs), "note": "both sides' best"})
    if "transformers fp32" in seconds:
        for name, weights in {"ours fp32": "as the file has them", f"ours {PLAIN}": "fp32"}.items():
            if name in ours:
                note = f"same dtype, weights in memory {weights}"
                rows.append({**compared(seconds, name, "transformers fp32", goals.HF_SAME), "note": note})
        rows.append({**compared(seconds, mine, "transformers fp32", goals.HF_BEST), "note": "our best"})
    return rows


def perplexities(given: argparse.Namespace, ours: Mapping[str, Ours]) -> dict[str, Any] | None:
    """Each precision's perplexity on the first bytes of wikipedia/dev.txt; None where it is not asked for."""
    root = data_root(given.data_root)
    path = None if root is None else root / "wikipedia" / "dev.txt"
    if given.no_perplexity or path is None or not path.is_file():
        reason = "not asked for" if given.no_perplexity else "no wikipedia/dev.txt; give --data-root"
        print(f"perplexity: {reason}", file=sys.stderr)
        return None
    text = path.read_bytes()[: given.text_bytes].decode(errors="ignore")
    of = {}
    for name in {**ours, "ours fp32": None}:
        print(f"{name}: perplexity", file=sys.stderr, flush=True)
        of[name] = (ours.get(name) or Ours("fp32")).perplexity(text)
    return {"text": "wikipedia/dev.txt", "bytes": len(text.encode()), "of": of}


def many_streams(given: argparse.Namespace) -> dict[str, Any]:
    """Decoding of several streams at once."""
    ours, llama = contenders(usable(given.precisions), "many"), llama_kinds(given.llama_bin, given.threads, given.kinds)
    prompts = random_ids((given.streams, given.stream_prompt))
    calls: dict[str, Callable[[], tuple[float, float]]] = {
        name: functools.partial(one.streams, given.streams, given.stream_prompt, given.stream_tokens)
        for name, one in llama.items()
    }
    calls.update({name: functools.partial(one.streams, prompts, given.stream_tokens) for name, one in ours.items()})
    whole: Seconds = {name: [] for name in calls}

    def run(name: str) -> float:
        reading, generating = calls[name]()
        whole[name].append(reading + generating)
        return generating

    seconds = measured(given, {name: functools.partial(run, name) for name in calls})
    whole = {name: values[-given.rounds :] for name, values in whole.items()}
    rows = side_by_side(seconds, list(ours), list(llama), goals.STREAMS, "generation alone")
    rows += side_by_side(whole, list(ours), list(llama), None, "with the prompts")
    work = f"decoding, {given.streams} streams at once, {given.stream_tokens} tokens each after {given.stream_prompt}"
    return {"work": work, **told(seconds, given.streams * given.stream_tokens, rows)}


def a_prompt(given: argparse.Namespace) -> dict[str, Any]:
    """Reading a prompt up to the first token."""
    ours, llama = (
        contenders(usable(given.precisions), "prompt"),
        llama_kinds(given.llama_bin, given.threads, given.kinds),
    )
    ids = random_ids((given.prompt,))
    competitors: dict[str, Callable[[], float]] = {
        name: functools.partial(one.prompt, given.prompt) for name, one in llama.items()
    }
    competitors.update({name: functools.partial(lambda one: one.steps(ids, 1)[0], one) for name, one in ours.items()})
    seconds = measured(given, competitors)
    rows = side_by_side(seconds, list(ours), list(llama), goals.PROMPT, "to the first token")
    return {"work": f"a prompt of {given.prompt} tokens", **told(seconds, given.prompt, rows)}


def side_by_side(
    seconds: Seconds, ours: list[str], llama: list[str], goal: goals.Goal | None, note: str
) -> list[dict[str, Any]]:
    """Our best, and ours at the file's own width, against llama.cpp's Q4_1 (the goal's peer) and its best."""
    rows = []
    for mine in dict.fromkeys([best(seconds, ours), *(name for name in ours if name == "ours stored")]):
        rows.append({**compared(seconds, mine, FILE_KIND, goal), "note": note})
        rows.append({**compared(seconds, mine, best(seconds, llama)), "note": f"{note}, llama.cpp's best"})
    return rows


def measured(given: argparse.Namespace, competitors: Mapping[str, Callable[[], float]]) -> Seconds:
    """The rounds, after one that does not count."""
    print("warming up", file=sys.stderr, flush=True)
    take_turns(competitors, 1)
    return take_turns(competitors, given.rounds)


def told(seconds: Seconds, tokens: int, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {
        "tokens_per_second": {name: rate(values, tokens).as_mapping() for name, values in seconds.items()},
        "rows": list(rows),
    }


def lines(result: Mapping[str, Any]) -> list[str]:
    """The report for people."""
    text = machine_lines(result["machine"])
    text.append(f"{result['work']}; SmolLM2-135M-Instruct; median (lowest … highest) of {result['rounds']} rounds")
    quality = result.get("perplexity")
    if quality:
        text.append(f"perplexity on the first {quality['bytes']:,} bytes of {quality['text']}:")
        fp32 = quality["of"]["ours fp32"]
        text += [f"  {name:<18} {value:.3f} ({value / fp32 - 1:+.2%})" for name, value in quality["of"].items()]
    text.append("tokens a second:")
    text += [f"  {name:<18} {spread(value, 1)}" for name, value in result["tokens_per_second"].items()]
    text.append("ratios, round by round:")
    text += [row_line(row) for row in result["rows"]]
    if (agree := result.get("fp32_same_tokens_as_transformers")) is not None:
        text.append(f"ours fp32 wrote the same tokens as transformers: {'yes' if agree else 'no'}")
    return text


def parsed() -> argparse.Namespace:
    parser = arguments(__doc__)
    work = parser.add_mutually_exclusive_group()
    work.add_argument("--streams", type=int, default=1, help="so many texts at once")
    work.add_argument("--prompt", type=int, default=0, help="measure reading a prompt of so many tokens instead")
    parser.add_argument("--tokens", type=int, default=128, help="of the one stream")
    parser.add_argument("--stream-prompt", type=int, default=16, help="tokens of each stream's prompt")
    parser.add_argument("--stream-tokens", type=int, default=64, help="tokens that each stream writes")
    parser.add_argument("--precisions", nargs="+", help="ours; all that the processor is made for by default")
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), help="llama.cpp's; Q4_1 must be among them")
    parser.add_argument("--data-root", type=Path, help="holds wikipedia/dev.txt; ../shared/data where that is there")
    parser.add_argument("--text-bytes", type=int, default=60_000, help="so much of it")
    parser.add_argument("--no-perplexity", action="store_true")
    parser.add_argument("--no-transformers", action="store_true")
    parser.add_argument("--peer-python", help="one that has transformers; else .venv-peers/transformers is made")
    given = parser.parse_args()
    if "Q4_1" not in given.kinds:
        parser.error("--kinds must contain Q4_1, which the goals are set against")
    return given


def main() -> None:
    given = parsed()
    torch.set_num_threads(given.threads)
    measure = a_prompt if given.prompt else many_streams if given.streams > 1 else one_stream
    result = {**measure(given), "rounds": given.rounds, "machine": machine_limits(given.threads)}
    print(json.dumps(result, indent=2) if given.json else "\n".join(lines(result)))


if __name__ == "__main__":
    main()
