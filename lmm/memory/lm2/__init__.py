"""Internal memory: a few learned slots, read by attention and written at the end of each turn."""
