"""How long the page takes from a click to the first picture, in a real Chromium before a real server.

    python benchmarks/page.py [--model smollm2-135m-instruct] [--tokens 64] [--rounds 5] [--threads 2] [--json]

`glassformer serve` runs in a process of its own; a text of so many tokens, a new one each round, is put into the page's
form and "Look inside" is pressed. Two pictures are timed: the row of tokens, and all heads of the attention with one of
them large; the earlier is "the first picture". A picture is there when two frames have been painted after it. Beside
them stands what the model's forward pass alone takes, in this process, with as many threads. Needs Playwright and
Chromium (`pip install playwright`).
"""

from __future__ import annotations

import argparse
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from machine import machine_limits
from rounds import Spread, machine_lines, spread

TEXT = (
    "The Eiffel Tower stands in Paris, the capital of France, and was built for the fair of 1889 by the company of "
    "Gustave Eiffel. It is 330 metres high, and was the highest building of the world for 41 years, until a tower in "
    "New York was higher. Seven million people visit it every year, and most of them take the lift."
)
READY_SECONDS = 180.0

TIMED = """
([selectors, text]) => new Promise((done) => {
  const taken = {};
  const begun = performance.now();
  const look = () => {
    for (const [name, selector] of Object.entries(selectors)) {
      if (name in taken || !document.querySelector(selector)) continue;
      taken[name] = null;
      requestAnimationFrame(() => requestAnimationFrame(() => {
        taken[name] = (performance.now() - begun) / 1000;
        if (Object.keys(selectors).every((each) => taken[each])) done(taken);
      }));
    }
  };
  document.getElementById("row").replaceChildren();
  document.getElementById("panels").replaceChildren();
  new MutationObserver(look).observe(document.body, { childList: true, subtree: true });
  document.getElementById("text-choice").value = text;
  document.querySelector("#ask button[type=submit]").click();
})
"""
PICTURES = {"tokens": "#row .token", "attention": '[data-name="attention-matrix"] td'}


@contextmanager
def served(model: str, threads: int) -> Iterator[str]:
    """A server of the model; its address."""
    command = [sys.executable, "-m", "glassformer", "serve", "--model", model, "--port", "0"]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stdout is not None
        ready, _, _ = select.select([process.stdout], [], [], READY_SECONDS)
        line = process.stdout.readline() if ready else ""
        if "http://" not in line:
            raise SystemExit(f"the server did not start: {line!r}")
        yield line[line.index("http://") :].strip()
    finally:
        process.terminate()
        try:
            process.wait(40)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def timed(address: str, texts: list[str]) -> list[dict[str, float]]:
    """The seconds to each picture, round by round; the first round, before which nothing was warm, is left out."""
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as running:
        browser = running.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.goto(address)
        page.locator("#text-choice").wait_for()
        found = []
        for number, text in enumerate(texts):
            found.append(page.evaluate(TIMED, [PICTURES, text]))
            print(f"round {number} of {len(texts) - 1}: {found[-1]}", file=sys.stderr, flush=True)
        browser.close()
    return found[1:]


def forward(model: Any, ids: list[int], rounds: int) -> list[float]:
    """Seconds of the network alone."""
    import torch

    given, seconds = torch.tensor([ids]), []
    with torch.no_grad():
        for _ in range(rounds + 1):
            begun = time.perf_counter()
            model.network(given)
            seconds.append(time.perf_counter() - begun)
    return seconds[1:]


def measure(name: str, tokens: int, rounds: int, threads: int) -> dict[str, Any]:
    """All figures. The forward pass is measured before the server starts."""
    import torch

    import glassformer as gf

    torch.set_num_threads(threads)
    model = gf.load(name)
    ids = model.tokenizer.encode(TEXT)[:tokens]
    texts = [model.tokenizer.decode(model.tokenizer.encode(f"{i}. {TEXT}")[:tokens]) for i in range(rounds + 1)]
    alone = forward(model, ids, rounds)
    del model
    with served(name, threads) as address:
        pictures = timed(address, texts)
    first = [min(each.values()) for each in pictures]
    columns = {"first picture": first, **{each: [row[each] for row in pictures] for each in PICTURES}}
    seconds = {each: Spread.of(values).as_mapping() for each, values in columns.items()}
    about = {"model": name, "tokens": len(ids), "rounds": rounds, "threads": threads}
    return {**about, "forward": Spread.of(alone).as_mapping(), "seconds": seconds}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--model", default="smollm2-135m-instruct")
    arguments.add_argument("--tokens", type=int, default=64)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    arguments.add_argument("--json", action="store_true")
    given = arguments.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the server and the browser are ended as well
    limits = machine_limits(given.threads)
    found = measure(given.model, given.tokens, given.rounds, given.threads)
    if given.json:
        print(json.dumps({"machine": limits, **found}))
        return
    print("\n".join(machine_lines(limits)))
    print(f"{found['model']}, {found['tokens']} tokens, median of {found['rounds']} rounds (lowest … highest), seconds")
    for name, value in {"forward pass alone": found["forward"], **found["seconds"]}.items():
        print(f"  {name:<20} {spread(value, 3)}")


if __name__ == "__main__":
    main()
