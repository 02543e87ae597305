"""Measurements of fmjax: speed, quality, survival of faults, and the same by other libraries.

Each is run from the root of the repository, e.g. ``python -m benchmarks.speed.sampling``, and
writes a JSON file to benchmarks/results/ with the command, the date, the machine and the versions.
"""
