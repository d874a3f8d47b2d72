"""Memories: plain mathematics over `Ops`, each in a file or folder of its own."""
