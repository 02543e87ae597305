"""What a flow trained on the handwritten digits is worth: its samples, solvers and applications."""
