"""The mark of tests that need the TPU compiler."""

import importlib.util

import pytest

needs_compiler = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="libtpu, the TPU compiler, is not installed"
)
