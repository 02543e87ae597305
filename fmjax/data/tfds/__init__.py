"""Data sets in tensorflow_datasets' own format: where they lie, how they are written and read."""
