"""The weights command: a run's parameters as safetensors, out and in again."""
