"""Peak figures of chips, and what a compiled program asks of them: collectives, memory traffic."""
