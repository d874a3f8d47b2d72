"""`python -m lmm` is the `lmm` command."""

from lmm.cli.app import main

main()
