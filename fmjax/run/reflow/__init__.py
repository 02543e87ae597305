"""The reflow command: a flow learns its own pairs again, and its paths become straighter."""
