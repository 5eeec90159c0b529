"""Fixtures of the tests of tasks."""

import pytest
from tasks.small_models import TEXT, model_of

from glassformer.tasks.model import Model
from glassformer.text.pipeline import TextPipeline
from glassformer.text.tokenizer import Tokenizer


@pytest.fixture(scope="session")
def model() -> Model:
    tokenizer = Tokenizer.train([TEXT], kind="word", vocab_size=60, min_frequency=1)
    return model_of(tokenizer, TextPipeline(lowercase=True))
