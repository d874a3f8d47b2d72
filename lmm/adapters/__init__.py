"""Backends: run a model in parts, look inside, and leave it bitwise as it was; decoding"""
