"""What a chip can do at best, and what a compiled program asks of it."""
