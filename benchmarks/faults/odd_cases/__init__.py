"""Odd command lines and files for every command: ``python -m benchmarks.faults.odd_cases``."""
