"""`glassformer`: the verbs, and what happens when one fails.

Data goes to stdout and messages to stderr. Exit codes: 0, 2 for what the user can put right (one line on stderr, no
traceback), 130 for Ctrl-C, 141 where the reader of stdout went away.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence
from keyword import iskeyword
from typing import TextIO

from cyclopts import App, CycloptsError

import glassformer
from glassformer.errors import InputError

USER_ERROR, INTERRUPTED, BROKEN_PIPE = 2, 130, 141

_EPILOGUE = """Begin with:
  glassformer demo
  glassformer translate --model multi30k-en-de "A man in a blue shirt."
  glassformer params gpt2
  glassformer train --help
"""

# Each verb: its home, one line about it, and examples. The home is imported when the verb, or help on it, is asked for.
_VERBS: dict[str, tuple[str, str]] = {
    "demo": (
        "Train a translator of dates in 45 languages from nothing, and look at what it learnt.",
        "  glassformer demo\n  glassformer demo --steps 200 --out runs/short --json",
    ),
    "train": (
        "Train a model as a recipe says, or go on with a run.",
        "  glassformer train recipes/dates.toml --training.steps 500\n"
        "  glassformer train recipes/translation.toml --data.train P --data.valid Q \\\n"
        "      --data.test R --data.source en --data.target de\n"
        "  glassformer train --resume runs/dates",
    ),
    "tokenize": (
        "Turn text of any size into token shards, from which language models train without reading it again.",
        "  glassformer tokenize corpus/*.jsonl --tokenizer bpe --vocab-size 50257 --out data/shards/train\n"
        "  glassformer tokenize valid.txt --documents line --tokenizer data/shards/train --out data/shards/valid\n"
        "  glassformer tokenize hub:NAME:CONFIG:train --tokenizer GPT2_FOLDER --out data/shards/train\n"
        "  glassformer tokenize --verify data/shards/train",
    ),
    "finetune": (
        "Train a model further, with the head and on the data of a recipe.",
        "  glassformer finetune recipes/sst2.toml --model all-minilm-l6-v2 --data-root DATA\n"
        "  glassformer finetune recipes/sst2.toml --model all-minilm-l6-v2 --lora --name sst2-lora\n"
        "  glassformer finetune recipes/sst2.toml --model runs/wiki-bert --freeze 'blocks[0:3]'",
    ),
    "evaluate": (
        "Score a model on the test data of its recipe, or on other files.",
        "  glassformer evaluate runs/dates --split test --json\n"
        "  glassformer evaluate multi30k-en-de --data P --source en --target de\n"
        "  glassformer evaluate --model DIR --text FILE --context 1024 --stride 512",
    ),
    "translate": (
        "Translate text, given here or line by line on standard input.",
        '  glassformer translate --model multi30k-en-de "A man in a blue shirt."\n'
        "  cat lines.en | glassformer translate --model runs/NAME > lines.de\n"
        '  glassformer translate --model multi30k-en-de "A dog runs." --attention dog.png',
    ),
    "generate": (
        "Go on from prompts, given here or line by line on standard input.",
        '  glassformer generate --model smollm2-135m-instruct "Once upon a time"\n'
        "  glassformer generate --model DIR --temperature 0.8 --top-p 0.95 --seed 1 < prompts.txt\n"
        "  cat prompts.txt | glassformer generate --model DIR --json > texts.jsonl\n"
        '  glassformer generate --model DIR "A person:" --json-schema schema.json',
    ),
    "chat": (
        "Talk with a model that was tuned to chat.",
        "  glassformer chat --model smollm2-135m-instruct\n"
        '  glassformer chat --model DIR --system "Answer in one sentence." --temperature 0.7\n'
        '  echo "Why is the sky blue?" | glassformer chat --model smollm2-135m-instruct',
    ),
    "embed": (
        "Make a vector of every text, given here or line by line on standard input.",
        "  glassformer embed --model all-minilm-l6-v2 < lines.txt > vectors.npy\n"
        '  glassformer embed --model DIR --json "A dog runs." "A cat sleeps."',
    ),
    "fill": (
        "Say which words are most probable for a mask in a text.",
        '  glassformer fill --model DIR "Paris is the [MASK] of France."\n'
        '  glassformer fill --model DIR --top 10 --json "The [MASK] sat on the [MASK]."',
    ),
    "inspect": (
        "Look into a model while it reads one text: attention, layers and patching in one page.",
        '  glassformer inspect --model smollm2-135m-instruct "The Eiffel Tower is in the city of"\n'
        '  glassformer inspect --model smollm2-135m-instruct "The capital of France is" \\\n'
        '      --patch-from "The capital of Italy is" --out capitals.html\n'
        '  glassformer inspect --model multi30k-en-de --json "A dog runs." > dog.jsonl',
    ),
    "serve": (
        "Serve models over HTTP, as OpenAI's clients know it, with a page that shows what is in them.",
        "  glassformer serve --model smollm2-135m-instruct\n"
        "  glassformer serve --model smollm2-135m-instruct --model all-minilm-l6-v2 --port 8080\n"
        "  glassformer serve --model M --documents DIR --risk risk.json\n"
        "  GLASSFORMER_API_KEY=K glassformer serve --model chat=runs/NAME --host 0.0.0.0",
    ),
    "recall": (
        "Study how a model recalls facts: three stages and their controls, with verdicts, in one report.",
        "  glassformer recall --model smollm2-135m-instruct --facts landmark_in_country.json --out landmarks\n"
        "  glassformer recall --model DIR --facts facts.jsonl --quick --json\n"
        "  glassformer recall --train recipes/athletes-gpt.toml --data-root DATA --out athletes\n"
        "  glassformer recall --train recipes/athletes-gpt.toml --people 500",
    ),
    "calibrate": (
        "Learn from questions with known answers how often a model is wrong where it is how unsure.",
        "  glassformer calibrate --model smollm2-135m-instruct --questions questions.jsonl --out risk.json\n"
        "  glassformer calibrate --model DIR --questions landmark_in_country.json --shots 3 --out risk.json",
    ),
    "hallucination": (
        "Study when a model says what is not so: what detects it, and what helps, with verdicts, in one report.",
        "  glassformer hallucination --model smollm2-135m-instruct --data-root DATA --out hallucination\n"
        "  glassformer hallucination --model DIR --quick --only detection calibration --json",
    ),
    "import": (
        "Bring a model in from a Hugging Face folder or a GGUF file.",
        "  glassformer import HF_DIR models/NAME\n"
        "  glassformer import FILE.gguf models/NAME --dtype bf16\n"
        "  glassformer import all-minilm-l6-v2 models/minilm",
    ),
    "export": (
        "Write a model as a folder that Hugging Face's transformers can load.",
        "  glassformer export runs/NAME hf/NAME --format hf\n"
        "  glassformer export smollm2-135m-instruct hf/smollm2 --dtype bf16",
    ),
    "quantize": (
        "Store a model with weights of 8 or 4 bits, to be run and no longer trained.",
        "  glassformer quantize smollm2-135m-instruct models/smollm2-int4 --precision int4",
    ),
    "classify": (
        "Say which label a text has, given here or line by line on standard input.",
        '  glassformer classify --model sst2-minilm "a gripping, funny film"\n'
        "  cat lines.txt | glassformer classify --model runs/sst2 --json",
    ),
    "verify": (
        "Check the numbers, dates and names of a statement against documents, with quotes.",
        '  glassformer verify --documents DIR "The Mona Lisa was painted in 1815."\n'
        "  glassformer verify --documents A.txt --documents B.txt --json --strict < statements.txt",
    ),
    "ask": (
        "Answer questions, with how sure the model is, or with quotes from documents.",
        '  glassformer ask --model smollm2-135m-instruct "When was the Mona Lisa painted?"\n'
        '  glassformer ask --documents DIR "When was the Mona Lisa painted?"\n'
        '  glassformer ask --model M --documents DIR --write "When was the Mona Lisa painted?"\n'
        '  glassformer ask --model M --risk RISK --max-error 0.1 "What is the capital of France?"',
    ),
    "answer": (
        "Find the span of a text that answers a question, or say that there is none.",
        '  glassformer answer --model squad-minilm --context FILE "Who wrote it?"\n'
        "  glassformer answer --model runs/squad --context FILE --json < questions.txt",
    ),
    "summarize": (
        "Write a short text for a long one.",
        "  glassformer summarize --model runs/aeslc < mail.txt\n"
        "  glassformer summarize --model runs/aeslc --lines --json < documents.txt",
    ),
    "params": (
        "Count a model's parameters by part, its memory by precision, and its FLOPs a token.",
        "  glassformer params gpt3-175b\n  glassformer params runs/NAME --json\n"
        "  glassformer params smollm2-135m --context 2048\n  glassformer params",
    ),
    "plan": (
        "Lay a training over many devices: layout, memory, communication, time and cost, before any is rented.",
        "  glassformer plan gpt3-175b --gpus 1024 --memory 80GB --batch-tokens 3.2M\n"
        "  glassformer plan gpt3-13b-corrected --gpus 64 --machine a100 --batch-tokens 2M --parallel.tensor 8\n"
        "  glassformer plan gpt3-small --gpus 2 --machine cpu --precision fp32 --batch-tokens 16384 --json",
    ),
    "machine": (
        "Measure what this machine can do at most: trainings say how much of it they used.",
        "  glassformer machine\n  glassformer machine --threads 1 --json",
    ),
    "plot": (
        "Draw the losses and the scores of runs beside each other.",
        "  glassformer plot runs/A runs/B\n  glassformer plot runs/A --out curves.png",
    ),
    "compare": (
        "Measure what the Transformer replaced beside it: one report on recurrence, convolution and attention.",
        "  glassformer compare --quick\n"
        "  glassformer compare --runs runs/multi30k-en-de-transformer runs/multi30k-en-de-lstm\n"
        "  glassformer compare --only cost memory --out costs",
    ),
    "average": (
        "Average the weights of the last checkpoints of a run, or of several that began from one model.",
        "  glassformer average runs/NAME --last 10\n  glassformer average runs/NAME --last 5 --out averaged\n"
        "  glassformer average runs/tuned-1 runs/tuned-2 --last 10",
    ),
    "models": (
        "List the models that come with the package, the known ones, and the runs here.",
        "  glassformer models\n  glassformer models --runs elsewhere --json",
    ),
}


def application() -> App:
    """The verbs, none of them imported yet."""
    app = App(
        name="glassformer",
        help="Transformers you can see through: train them, run them, look inside.",
        help_format="plaintext",
        help_epilogue=_EPILOGUE,
        suppress_keyboard_interrupt=False,  # its message says how to go on
        version=lambda: str(glassformer.__version__),
    )
    for name, (about, examples) in _VERBS.items():
        home = f"{name}_" if iskeyword(name) else name
        app.command(f"glassformer.cli.{home}:{home}", name=name, help=about, help_epilogue=f"Examples:\n{examples}\n")
    return app


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line on `arguments` (the process's own unless given) and return the exit code."""
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        return _guarded(list(sys.argv[1:] if arguments is None else arguments))


def _guarded(arguments: list[str]) -> int:
    try:
        application()(arguments, exit_on_error=False, print_error=False, result_action="return_value")
        sys.stdout.flush()
        return 0
    except CycloptsError as error:
        return _fail(f"{_one_line(error)} See: glassformer {_verb(arguments)}--help")
    except InputError as error:
        return _fail(_one_line(error))
    except BrokenPipeError:
        # Nobody reads stdout any more; Python would complain again when it flushes it at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except OSError as error:
        return _fail(_describe(error))
    except KeyboardInterrupt as error:
        _say(f"\n{_one_line(error)}".rstrip())
        return INTERRUPTED


def _fail(message: str) -> int:
    _say(f"error: {message}")
    return USER_ERROR


def _say(message: str) -> None:
    """To stderr; of several processes that train together the first one says it."""
    if os.environ.get("WORLD_SIZE", "1") == "1" or os.environ.get("RANK", "0") == "0":
        print(message, file=sys.stderr)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def _describe(error: OSError) -> str:
    place = f"{error.filename}: " if error.filename else ""
    return f"{place}{error.strerror or _one_line(error)}."


def _verb(arguments: list[str]) -> str:
    return f"{arguments[0]} " if arguments and arguments[0] in _VERBS else ""


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """A warning to the user is a line without a place in the code; Python's own (deprecations) are for us."""
    if issubclass(category, UserWarning):
        print(f"warning: {' '.join(str(message).split())}", file=sys.stderr)
