"""Stored pairs (x0, x1, label): how they are written and read."""
