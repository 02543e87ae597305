"""Training machinery: state, optimiser, one step, and the two ways to compile it."""
