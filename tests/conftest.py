"""Tests compile no steps in the background, unless they say so: the compiler would work beside all others."""

import os

os.environ.setdefault("GLASSFORMER_COMPILE", "0")
