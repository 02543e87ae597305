"""Mutation testing of the mathematics, checkpoints, data and sampling."""
