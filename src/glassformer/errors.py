"""The one exception for what a user can cause, and the hint that goes with a misspelt name."""

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Something given by the user does not hold.

    The message says what must hold, what came instead and what to do, and names the file and line or the key.
    The command line prints it as one line and exits with code 2.
    """


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A hint to append to an error: `" Did you mean 'dropout'?"`, or the empty string when nothing is close."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" Did you mean '{close[0]}'?" if close else ""
