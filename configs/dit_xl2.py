"""DiT-XL/2 on latents of 256x256 images, for a TPU slice or a node of GPUs.

    python train.py --config=configs/dit_xl2.py --config.mesh.fsdp=4
    python train.py --config=configs/dit_xl2.py --config.mesh.fsdp=4 --compile_only=v5e:8x8

Parameters, average and moments take 10.8 GB: in four parts they fit beside the activations on chips
of 16 GB, and shards stay wide enough for fast products; one large GPU needs no parts.

The data are random numbers of the latents' shape, 32x32x4 in 1,000 classes, to compile and to
measure with: put your own encoded images in their place. Size, batch, learning rate and average
follow arXiv:2212.09748 but for its batch of 256; this has never been trained to its end.
"""

from fmjax.config import ConfigDict, default_config


def get_config() -> ConfigDict:
    config = default_config()
    config.data.name = "random/32x32x4/1000"
    config.model.update({"name": "DiT-XL/2", "dtype": "bfloat16", "scan": True, "remat": "full"})
    config.optimizer.update({"learning_rate": 1e-4, "schedule": "constant", "warmup_steps": 0})
    config.optimizer.update({"b2": 0.999, "clip_norm": 0.0})
    config.train.update({"steps": 400_000, "batch_size": 1024, "ema": 0.9999})
    config.train.update({"log_every": 100, "checkpoint_every": 10_000, "sample_every": 0})
    config.eval.num = 0  # random data have nothing to be compared with
    return config
