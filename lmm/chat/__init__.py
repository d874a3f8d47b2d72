"""The chat at a terminal and in a pipe: the learning loop, its commands, and how it is shown."""
