"""Sentence encoders: sentences to unit vectors"""
