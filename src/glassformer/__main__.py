"""`python -m glassformer`: the command line without its script."""

import sys

from glassformer.cli.main import main

sys.exit(main())
