"""Schemathesis makes requests of the OpenAPI document, right and wrong ones: no answer is our own fault.

`benchmarks/fuzz_api.py` makes thousands of them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from serving.api_server import Running, serving

from glassformer.serving.api.limits import Limits

schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed")

CASES = 12
"""For each endpoint; one that takes nothing has a single one."""


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    with serving(limits=Limits(new_tokens=8, texts=4, seconds=20)) as one:
        yield one


@pytest.mark.slow
def test_no_request_breaks_the_server(running: Running, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR, "glassformer.serving")
    document = schemathesis.openapi.from_url(f"{running.url}/openapi.json")
    tried = 0
    for found in document.get_all_operations():
        operation = found.ok()

        @settings(
            max_examples=CASES, deadline=None, derandomize=True, database=None, phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        @_given(operation)
        def once(case: Any) -> None:
            nonlocal tried
            tried += 1
            answer = case.call(timeout=30)
            assert answer.status_code < 500, (case.as_curl_command(), answer.text)

        once()
    assert tried >= 100 and not caplog.records
    assert running.service.well


def _given(operation: Any) -> Any:
    from hypothesis import given, strategies

    modes = schemathesis.GenerationMode
    return given(case=strategies.one_of(*(operation.as_strategy(generation_mode=mode) for mode in modes)))
