"""Samplers: from a velocity and source points to samples."""
