"""Texts, their vectors and what is known about them, for many users: one protocol, several homes"""
