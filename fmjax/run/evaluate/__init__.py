"""The evaluate command: samples of a trained run against real examples."""
