"""The `lmm` command."""
