"""The editing benchmark: teach N lessons one after another, then ask everything by free decoding."""
