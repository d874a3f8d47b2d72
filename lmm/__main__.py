"""`python -m lmm` is the `lmm` command."""

from lmm.cli import main

main()
