"""The sample command: from a trained run to samples on disk."""
