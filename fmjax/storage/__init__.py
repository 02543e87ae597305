"""Arrays on disk: checkpoints of a run by orbax, parameters as safetensors."""
