"""Several processes as one run: how they start, act together, and end when one fails."""
