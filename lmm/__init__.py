"""lmm: a chat over a local language model that learns from what its user tells it."""

__version__ = "0.1.0"
