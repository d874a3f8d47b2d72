"""Figures of reliability that take too long for a test: `make campaign`."""
