"""Time of training steps, of sampling and of `import fmjax`, alone and beside PyTorch.

Commands: `train_step`, `sampling`, `sampling_xl`, `checkouts`. The other files are parts of them.
"""
