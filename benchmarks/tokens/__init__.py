"""Flows of tokens on laws that are known."""
