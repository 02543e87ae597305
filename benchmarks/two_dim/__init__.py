"""The 2-D table of the field, by fmjax and by torchcfm: ``python -m benchmarks.two_dim``."""
