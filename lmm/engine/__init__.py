"""The engine: minds (a memory, what it knows, its file), conversations over them, and what asks, scores and trains."""
