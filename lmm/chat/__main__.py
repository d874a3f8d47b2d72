"""`python -m lmm.chat` is `lmm chat`."""

import runpy
import sys

if __name__ == "__main__":
    sys.argv.insert(1, "chat")
    runpy.run_module("lmm", run_name="__main__")
