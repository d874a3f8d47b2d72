"""Text: the one sanitiser, the one fold, and one way to ask whether a text contains another, in whole words."""
