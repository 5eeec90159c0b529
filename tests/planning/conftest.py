"""Tests here import the child process's file by name."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
