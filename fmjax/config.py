"""The configuration: every key with its default.

`default_config` is the list of keys. Files under ``configs/`` start from it and say what differs;
``--config.KEY=VALUE`` on the command line has the last word. `fmjax.factory` turns the strings into
objects.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def default_config() -> ConfigDict:
    """Every configuration key with its default; a None is filled in by what the comment names."""
    config = ConfigDict()
    config.data = ConfigDict(
        {
            # digits, toy/NAME, any prepared TFDS set, or random/32x32x4/1000: to measure speed
            "name": "digits",
            "dir": placeholder(str),  # TFDS's own data directory, or TFDS_DATA_DIR
            "flip": False,  # random horizontal flips
            "dequantize": False,  # images: uniform noise of one level, for likelihoods
            "threads": 4,  # reading ahead
        }
    )
    config.model = ConfigDict(
        {
            # dit, mlp, a preset such as DiT-B/2, or your own: my_module:build
            "name": "dit",
            "width": placeholder(int),  # the preset's
            "depth": placeholder(int),  # the preset's
            "heads": placeholder(int),  # the preset's
            "patch_size": placeholder(int),  # the preset's
            "time_scale": placeholder(float),  # the network's: t is multiplied by it first
            "dtype": "float32",  # of the matrix products: float32 or bfloat16
            "attention": "auto",  # xla, cudnn, or the one of them that fits
            "scan": False,  # blocks compiled once, as a loop: large models compile much faster
            "remat": "none",  # what blocks compute twice to save memory: none, dots or full
        }
    )
    # Devices along each axis, their product all of them; one may be -1, for the rest.
    config.mesh = ConfigDict(
        {
            "data": -1,  # copies of the state
            "fsdp": 1,  # parts of the state
            "tensor": 1,  # parts of each matrix product
        }
    )
    config.source = ConfigDict(
        {
            "name": "normal",  # normal, uniform, data
            "low": -1.0,  # of uniform
            "high": 1.0,  # of uniform
            "data": placeholder(str),  # of data: the name of the data set that flows start from
            "dir": placeholder(str),  # of data: where it lies, as data.dir
            "size": 10_000,  # of data: how many of its training examples, at most
        }
    )
    config.path = ConfigDict(
        {
            "name": "linear",  # linear, vp, linear_vp, cosine, polynomial, noisy, bridge
            "sigma_min": 0.0,  # of linear
            "beta_min": 0.1,  # of vp
            "beta_max": 20.0,  # of vp
            "power": 2.0,  # of polynomial
            "sigma": 0.1,  # of noisy and bridge
        }
    )
    config.coupling = ConfigDict(
        {
            # ot, sinkhorn, schroedinger_bridge (with path.sigma), unbalanced, partial: in the step;
            # host_ot: in the data threads; pairs: stored ones
            "name": "independent",
            "groups": 1,  # equal parts of the global batch, each paired by itself
            "by_label": True,  # pairs within a class only, where the model is conditional
            "epsilon": 1.0,  # of sinkhorn and unbalanced, in units of the squared distance
            "rounding": "permutation",  # of sinkhorn: permutation or sample
            "relax": 10.0,  # of unbalanced: pairs that cost much more are given up
            "fraction": 0.9,  # of partial: the share that is paired
            "dir": placeholder(str),  # of pairs: a folder that reflow wrote
        }
    )
    config.time = ConfigDict(
        {
            "name": "uniform",  # logit_normal, log_normal, u_shaped, mode, cosmap, beta
            "mean": placeholder(float),  # of logit_normal and log_normal
            "std": placeholder(float),  # of logit_normal and log_normal
            "scale": placeholder(float),  # of mode
            "a": placeholder(float),  # of u_shaped and beta
            "b": placeholder(float),  # of beta
            "shift": 1.0,  # of SD3 and FLUX: above 1, more times near the noise
            "stratified": False,  # one t from each of batch_size equally likely intervals
            "importance": False,  # weights that keep the objective of uniform times
        }
    )
    config.loss = ConfigDict(
        {
            "target": "fm",  # fm or rf
            "prediction": "velocity",  # velocity, x1, x0, score or v
            "distance": "squared",  # the path's own; or pseudo_huber, adaptive
            "c": placeholder(float),  # of pseudo_huber and adaptive
            "power": 1.0,  # of adaptive
            "weight": "none",  # velocity: another prediction's error counts as a velocity's
        }
    )
    config.labels = ConfigDict(
        {
            "conditional": True,
            "drop_rate": 0.1,  # for classifier-free guidance; of each condition without its own
            "drop_all": 0.0,  # of several conditions: the probability that all go together
            "null": placeholder(int),  # of class ids: one past the last class
            "only": placeholder(str),  # of several conditions: which the model takes, e.g. age,sex
        }
    )
    config.optimizer = ConfigDict(
        {
            "learning_rate": 1e-3,
            "schedule": "cosine",  # cosine or constant, after a linear warm-up
            "warmup_steps": 100,
            "b1": 0.9,
            "b2": 0.99,
            "weight_decay": 0.0,
            "clip_norm": 1.0,  # 0 does not clip
            "skip_above": 0.0,  # leaves out steps of so many times the usual norm; 0: none
        }
    )
    config.train = ConfigDict(
        {
            "steps": 1000,
            "batch_size": 128,  # global, over all devices and processes
            "accumulate": 1,  # parts into which a batch is split to save memory
            "steps_per_call": 1,  # of the compiled program: more where steps take under 10 ms
            "ema": 0.9999,
            "seed": 0,
            "log_every": 50,
            "checkpoint_every": 500,
            "val_every": 0,  # the held-out loss also every so many steps; 0: at checkpoints only
            "sample_every": 500,  # 0: never
            "keep": 3,  # newest checkpoints, beside the best one
        }
    )
    config.sample = ConfigDict({"guidance": 1.5, "solver": "heun", "steps": 25, "shift": 1.0})
    config.eval = ConfigDict({"num": 1000, "reference": 5000})  # 0 samples: no evaluation
    return config.lock()
