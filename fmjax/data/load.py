"""Interim."""

from fmjax.data.tfds.builders import load as load
