"""Runs of train.py that are killed, stopped or damaged: ``python -m benchmarks.faults``."""
