"""`python -m lmm` is the `lmm` command."""

from lmm.cli.entry import main

main()
