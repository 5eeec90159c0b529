"""What this machine can do at most: matrix products in fp32 and bf16, and reading memory.

python benchmarks/machine.py [--threads 2] [--json]
"""

from __future__ import annotations

import argparse
import json
import os

from glassformer.training.machine import gflops as gflops
from glassformer.training.machine import machine_limits as machine_limits


def main() -> None:
    from rounds import machine_lines

    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    arguments.add_argument("--json", action="store_true")
    given = arguments.parse_args()
    limits = machine_limits(given.threads)
    print(json.dumps(limits) if given.json else "\n".join(machine_lines(limits)))


if __name__ == "__main__":
    main()
