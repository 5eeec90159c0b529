"""Thousands of requests that Schemathesis makes of the server's OpenAPI document, right and wrong ones.

    python benchmarks/fuzz_api.py --cases 5000

No answer may be our own fault (5xx) or come later than --seconds. A server of tiny random models runs in this process;
the verdict is one JSON object, and the exit code 1 where something was found. Needs `pip install schemathesis`.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings, strategies
from hypothesis import seed as seeded


def main() -> int:
    """Run, print the verdict, and say by the exit code whether it is good."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=5000, help="Requests in all, about equally many an endpoint.")
    parser.add_argument("--seconds", type=float, default=60.0, help="An answer that takes longer is a hang.")
    parser.add_argument("--seed", type=int, default=0)
    given_options = parser.parse_args()
    sys.path[0] = str(Path(__file__).resolve().parent.parent / "tests")  # this folder has a serving.py of its own
    from serving.api_server import serving

    from glassformer.serving.api.limits import Limits

    began = time.perf_counter()
    with serving(limits=Limits(new_tokens=8, texts=4, seconds=20)) as one:
        document = schemathesis.openapi.from_url(f"{one.url}/openapi.json")
        operations = [found.ok() for found in document.get_all_operations()]
        asked = [operation for operation in operations if operation.method.upper() == "POST"]
        each = -(-given_options.cases // len(asked))  # one that takes nothing has a single case
        fuzzing = Fuzzing(given_options.seconds)
        for operation in operations:
            fuzzing.try_all(operation, each, given_options.seed)
        well = one.service.well
    verdict = {
        "cases": sum(fuzzing.statuses.values()),
        "endpoints": len(operations),
        "statuses": {str(status): count for status, count in sorted(fuzzing.statuses.items())},
        "slowest_seconds": round(fuzzing.slowest, 2),
        "found": fuzzing.found[:10],
        "well": well,
        "seconds": round(time.perf_counter() - began),
    }
    print(json.dumps(verdict))
    return 0 if well and not fuzzing.found else 1


class Fuzzing:
    """What came of all requests: how often each status, the slowest answer, and what should not be."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.slowest = seconds, 0.0
        self.statuses: Counter[int] = Counter()
        self.found: list[str] = []

    def try_all(self, operation: Any, cases: int, seed: int) -> None:
        """`cases` requests of one endpoint."""
        modes = schemathesis.GenerationMode
        made = strategies.one_of(*(operation.as_strategy(generation_mode=mode) for mode in modes))

        @settings(
            max_examples=cases,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=made)
        def once(case: Any) -> None:
            self._try(case)

        seeded(seed)(once)()

    def _try(self, case: Any) -> None:
        began = time.perf_counter()
        try:
            answer = case.call(timeout=self.seconds)
            self.statuses[answer.status_code] += 1
            if answer.status_code >= 500:
                self.found.append(f"{answer.status_code}: {case.as_curl_command()}")
        except (httpx.HTTPError, OSError, TimeoutError) as error:
            self.found.append(f"{type(error).__name__}: {case.as_curl_command()}")
        self.slowest = max(self.slowest, time.perf_counter() - began)


if __name__ == "__main__":
    sys.exit(main())
