"""`notes`: what was said, shown to the model where it helps to reply."""
