"""Ahead-of-time compilation for a TPU topology, without TPUs, and the report of it."""
