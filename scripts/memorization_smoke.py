"""`python -m scripts.memorization_smoke` is `lmm smoke`."""

from __future__ import annotations

import sys

from lmm.cli.app import main

if __name__ == "__main__":
    sys.argv.insert(1, "smoke")
    main()
