"""The distill command: a network of two times learns from a trained flow to jump."""
