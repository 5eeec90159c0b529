"""`glassformer.text` gives its names without loading what they need before they are used."""

import subprocess
import sys

import pytest

import glassformer.text as text


def test_every_public_name_is_there():
    for name in text.__all__:
        assert getattr(text, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        text.nothing  # noqa: B018


def test_reading_corpora_needs_no_torch():
    code = (
        "import sys\n"
        "from glassformer.text import Pairs, TextPipeline, Tokenizer, dates_corpus, read_pairs, resolve\n"
        "print('torch' in sys.modules, 'sacremoses' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False False"
