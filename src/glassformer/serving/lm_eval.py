"""A model for EleutherAI's lm-eval, without a server: `simple_evaluate(model=Evaluated(model), tasks=[...])`.

Prompts, continuations and scores are those that its `local-completions` gets from `glassformer serve`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from glassformer.errors import InputError
from glassformer.generation.engine import generate
from glassformer.generation.requests import Request, Result
from glassformer.tasks.chat import chat_text
from glassformer.tasks.generate import Options, make_requests
from glassformer.tasks.model import Model

try:
    from lm_eval.api.model import TemplateLM
    from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
except ImportError:
    raise InputError("evaluating with lm-eval needs it: pip install lm-eval.") from None

Scored = tuple[float, bool]
"""The log-probability of a continuation, and whether greedy search would have written it."""


class Evaluated(TemplateLM):
    """`model`, a decoder, as lm-eval asks it. `batch_size` texts go together; what each gets does not depend on that.

    Special tokens that a prompt spells are read as such, and nothing frames a prompt: as lm-eval does elsewhere.
    """

    def __init__(self, model: Model, *, batch_size: int = 16, max_new_tokens: int = 256, seed: int = 1234) -> None:
        super().__init__()
        model.running  # noqa: B018 - only a decoder scores and continues
        self.model, self.rows, self.max_new_tokens, self.seed = model, batch_size, max_new_tokens, seed

    @property
    def eot_token_id(self) -> int:
        """What ends a text."""
        return self.model.ends[0]

    @property
    def prefix_token_id(self) -> int:
        """What a text without a context begins with."""
        begins = self.model.tokenizer.bos_id
        return self.eot_token_id if begins is None else begins

    @property
    def max_length(self) -> int:
        """Tokens of a context and its continuation, with room for one more, as a server needs it."""
        return int(self.model.config.max_length) - 1

    @property
    def tokenizer_name(self) -> str:
        """What lm-eval names its cache of requests by."""
        return type(self.model.network).__name__

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **settings: Any) -> list[int]:
        """The ids of a text; `add_special_tokens` frames it."""
        return self.model.tokenizer.encode(string, frame=bool(add_special_tokens), read_specials=True)

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """A conversation as text, by the model's own template."""
        return chat_text(self.model, chat_history, add_generation_prompt)

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[Any, list[int], list[int]]], **settings: Any
    ) -> list[Scored]:
        asked, lengths = [], []
        for _, context, continuation in requests:
            ids = (context + continuation)[-self.max_length :]
            lengths.append(min(len(continuation), len(ids) - 1))
            asked.append(Request(tuple(ids), 0, logprobs=1, prompt_logprobs=True))
        results = self._answered(asked)
        return [_scored(*pair) for pair in zip(results, lengths, strict=True)]

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        """The log-probability of whole texts, in windows that do not overlap."""
        totals = []
        for (text,) in (request.args for request in requests):
            windows = get_rolling_token_windows(
                self.tok_encode(text), self.prefix_token_id, max_seq_len=self.max_length - 1, context_len=1
            )
            parts = [(None, *make_disjoint_window(window)) for window in windows]
            totals.append(sum(value for value, _ in self._loglikelihood_tokens(parts)))
        return totals

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """What follows each context, up to one of its stop strings."""
        return [result.text for result in self._answered([self._asked(*request.args) for request in requests])]

    def _asked(self, context: str, settings: dict[str, Any]) -> Request:
        settings = {name: value for name, value in settings.items() if name != "do_sample"}
        until = settings.pop("until", None) or []
        most = int(settings.pop("max_tokens", settings.pop("max_gen_toks", self.max_new_tokens)))
        end = self.model.tokenizer.tokens([self.eot_token_id])[0]
        stop = dict.fromkeys([*([until] if isinstance(until, str) else until), end])
        options = Options(max_new_tokens=most, stop=list(stop), seed=self.seed, **settings)
        ids = self.tok_encode(context)[-(self.max_length - most) :] or [self.prefix_token_id]
        return make_requests(self.model, [ids], options)[0]

    def _answered(self, requests: list[Request]) -> list[Result]:
        return generate(self.model.engine(rows=min(self.rows, max(len(requests), 1))), requests) if requests else []


def _scored(result: Result, length: int) -> Scored:
    """The sum of the last `length` of a prompt's log-probabilities; whether each of these tokens was the best one."""
    assert result.prompt_logprobs is not None
    own = result.prompt_logprobs[len(result.prompt_logprobs) - length :]
    best = result.prompt_top_logprobs[len(result.prompt_top_logprobs) - length :]
    total = sum(value for value in own if value is not None)
    return total, all(value == top[0][1] for value, top in zip(own, best, strict=True))
