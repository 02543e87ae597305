"""Texts: one that every machine has, and a user's own from a ``.txt``, as blocks of tokens."""
