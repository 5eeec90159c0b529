"""What the one trainer must know of each task: its data, its objective, how it is judged."""

from __future__ import annotations

import importlib

from glassformer.training.jobs.job import Job as Job
from glassformer.training.jobs.job import Prepared as Prepared

_HOMES = {
    "translation": "translation",
    "language-modeling": "language",
    "masked-language-modeling": "masked",
    "classification": "classification",
    "question-answering": "answering",
    "summarization": "summarization",
}


def job_of(task: str) -> Job:
    """The job of a recipe's task."""
    job: Job = importlib.import_module(f"{__name__}.{_HOMES[task]}").JOB
    return job
