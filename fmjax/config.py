"""The configuration: every key with its default, its range and what it is.

`KEYS` is the list of keys. `default_config` makes the configuration of them; files under
``configs/`` start from it and say what differs; ``--config.KEY=VALUE`` on the command line has the
last word. `check_config` holds the result to the ranges, and `fmjax.factory` turns the names into
objects. ``python -m fmjax train --help-config`` prints this list.
"""

from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from fmjax.keys import NAME, TEXT, Group, Key, check_keys

COUNT = "[1, inf)"
DEPTH = "[1, 1000]"  # tracing takes some milliseconds a block
SHARE = "[0, 1]"
POSITIVE = "(0, inf)"
FINITE = "(-inf, inf)"

KEYS = {
    "data": Group(
        "which examples, and how they are read",
        name=Key(
            "digits",
            NAME,
            "digits, toy/NAME, text/romeo_and_juliet, a prepared set, random/32x32x4/1000 to "
            "measure speed, or your own",
        ),
        dir=Key(None, TEXT, "the data directory; TFDS_DATA_DIR, or TFDS's own", kind=str),
        x=Key(None, TEXT, "the feature that is the data; None: as the set says", kind=str),
        conditions=Key(
            None,
            TEXT,
            "the features that are conditions, e.g. label,age, or none; None: as the set says",
            kind=str,
        ),
        split=Key(None, TEXT, "what is trained on, e.g. train[:90%]; None: train", kind=str),
        test_split=Key(
            None, TEXT, "what is held out; None: test, or a tenth of what is trained on", kind=str
        ),
        size=Key(None, COUNT, "the side of the square that images become", "pixels", kind=int),
        time=Key(
            None,
            TEXT,
            "the feature that is the time of each example: a flow through the snapshots at each",
            kind=str,
        ),
        held_out_time=Key(
            None, FINITE, "the time of a snapshot that is measured and not trained on", kind=float
        ),
        levels=Key(
            None,
            "[2, 256]",
            "of images: each pixel as a token, the nearest of so many equally spaced levels",
            "levels",
            kind=int,
        ),
        flip=Key(False, "", "random horizontal flips"),
        dequantize=Key(False, "", "of images: uniform noise of one level, for likelihoods"),
        threads=Key(4, COUNT, "reading ahead", "threads"),
    ),
    "model": Group(
        "the network; None takes the preset's",
        name=Key(
            "dit",
            NAME,
            "dit, unet, mmdit, flux, mlp, fourier_mlp (for few numbers), token_transformer (for "
            "texts), a preset such as DiT-B/2, or your own my_module:build",
        ),
        width=Key(None, COUNT, "of each token, or of each layer", "features", kind=int),
        depth=Key(None, DEPTH, "how many blocks; of unet: on each level", "blocks", kind=int),
        heads=Key(None, COUNT, "of the attention", "heads", kind=int),
        patch_size=Key(None, COUNT, "the side of the square that is one token", "pixels", kind=int),
        channel_mult=Key(
            None, TEXT, "of unet: features of each level over model.width, e.g. 1,2,2,2", kind=str
        ),
        attention_factors=Key(
            None,
            TEXT,
            "of unet: attention where the sides are smaller by these factors, e.g. 2,4, or none",
            kind=str,
        ),
        single_depth=Key(
            None, DEPTH, "of flux: blocks behind those of model.depth", "blocks", kind=int
        ),
        grid=Key(
            None, COUNT, "of mmdit: the longest side of an image it takes", "patches", kind=int
        ),
        guidance_scale=Key(
            None,
            POSITIVE,
            "of flux: the scale of guidance at which it trains, where the scale is an input as "
            "FLUX.1-dev's is; None: it is none",
            kind=float,
        ),
        features=Key(None, COUNT, "of fourier_mlp: its frequencies", "frequencies", kind=int),
        frequency=Key(
            None, POSITIVE, "of fourier_mlp: the largest, one over the finest width", kind=float
        ),
        time_scale=Key(None, POSITIVE, "t is multiplied by it first; the network's", kind=float),
        at_steps=Key(
            False,
            "",
            "the network is asked at the step of path.name=discrete_vp that t lies at, as "
            "published DiT are, and not at t",
        ),
        variance=Key(
            False, "", "of dit: room in the last layer for the variance of published DiT and SiT"
        ),
        norm=Key(
            None,
            ("layer", "rms"),
            "of dit: LayerNorm, or RMSNorm with a learned scale; None: layer",
            kind=str,
        ),
        mlp=Key(
            None,
            ("gelu", "swiglu"),
            "of dit: the layer on each token, of two products or gated, of three; None: gelu",
            kind=str,
        ),
        mlp_ratio=Key(
            None,
            POSITIVE,
            "of dit: features inside that layer over model.width, at least one of them; None: 4",
            kind=float,
        ),
        qk_norm=Key(
            None, "", "of dit and mmdit: queries and keys of each head are normalised", kind=bool
        ),
        rope=Key(
            None,
            "",
            "of dit: queries and keys are turned by row and column of the patch",
            kind=bool,
        ),
        bottleneck=Key(
            None,
            COUNT,
            "of dit: a linear layer before that which embeds patches; None: none",
            "features",
            kind=int,
        ),
        label_tokens=Key(
            None, "[0, inf)", "of dit: of the labels, in front of the patches", "tokens", kind=int
        ),
        label_tokens_from=Key(
            None,
            "[0, inf)",
            "of dit: how many blocks are without them, the first ones",
            "blocks",
            kind=int,
        ),
        tied=Key(
            False, "", "of token_transformer: tokens are guessed by the table that embeds them"
        ),
        time=Key(True, "", "of tokens: whether the network is told t, which masks tell anyway"),
        dtype=Key("float32", ("float32", "bfloat16"), "of the matrix products"),
        attention=Key(
            "auto", ("auto", "xla", "cudnn"), "the kernel; auto takes the one of them that fits"
        ),
        scan=Key(False, "", "blocks compiled once, as a loop: large models compile much faster"),
        remat=Key("none", ("none", "dots", "full"), "what blocks compute twice to save memory"),
    ),
    "mesh": Group(
        "devices along each axis, their product all of them; one may be -1, for the rest",
        data=Key(-1, "-1 or [1, inf)", "copies of the state", "devices"),
        fsdp=Key(1, "-1 or [1, inf)", "parts of the state", "devices"),
        tensor=Key(1, "-1 or [1, inf)", "parts of each matrix product", "devices"),
    ),
    "source": Group(
        "where flows start",
        name=Key(
            "normal",
            NAME,
            "normal, uniform, data; on a manifold: uniform, wrapped_normal, data; or your own "
            "my_module:Name",
        ),
        low=Key(-1.0, FINITE, "of uniform: the lower end in every dimension"),
        high=Key(1.0, FINITE, "of uniform: the upper end, above source.low"),
        scale=Key(1.0, POSITIVE, "of wrapped_normal, around the origin of the manifold"),
        data=Key(None, NAME, "of data: the data set that flows start from", kind=str),
        dir=Key(None, TEXT, "of data: where that set lies, as data.dir", kind=str),
        size=Key(10_000, COUNT, "of data: how many of its training examples, at most", "examples"),
    ),
    "path": Group(
        "from the source to the data",
        name=Key(
            "linear",
            NAME,
            "linear, vp, linear_vp, discrete_vp (the 1000 steps of DDPM), cosine, polynomial, "
            "noisy, bridge; of tokens: mask, uniform; on a manifold: geodesic; "
            "or your own my_module:Name",
        ),
        sigma_min=Key(0.0, "[0, 1)", "of linear: the standard deviation that is left at t = 1"),
        beta_min=Key(0.1, POSITIVE, "of vp: the rate of the noise at the data"),
        beta_max=Key(20.0, POSITIVE, "of vp: the rate at the noise, path.beta_min or more"),
        power=Key(2.0, COUNT, "of polynomial, as a path or as path.kappa: the degree"),
        kappa=Key(
            "linear",
            NAME,
            "of mask and uniform, the share of the tokens that are data at t; of geodesic, the "
            "share of the way: linear, polynomial, cosine, cubic, or your own",
        ),
        sigma=Key(0.1, POSITIVE, "of noisy, bridge and schroedinger_bridge: the noise's scale"),
    ),
    "coupling": Group(
        "which point of the source goes with which example",
        name=Key(
            "independent",
            NAME,
            "independent; ot, sinkhorn, schroedinger_bridge (with path.sigma), unbalanced, partial:"
            " in the step; host_ot: in the data threads; pairs: stored ones; or your own",
        ),
        groups=Key(1, COUNT, "equal parts of the global batch, each paired by itself", "parts"),
        by_label=Key(True, "", "pairs within a class only, where the model is conditional"),
        epsilon=Key(1.0, POSITIVE, "of sinkhorn and unbalanced: entropy", "squared distance"),
        rounding=Key("permutation", ("permutation", "sample"), "of sinkhorn: from plan to pairs"),
        relax=Key(10.0, POSITIVE, "of unbalanced: pairs that cost much more are given up"),
        fraction=Key(0.9, "(0, 1]", "of partial: the share of the batch that is paired"),
        dir=Key(None, TEXT, "of pairs: a folder that reflow wrote", kind=str),
    ),
    "time": Group(
        "how often each t in [0, 1] is trained; None takes the distribution's own",
        name=Key(
            "uniform",
            NAME,
            "uniform, logit_normal, log_normal, u_shaped, mode, cosmap, beta, step_starts, or your "
            "own",
        ),
        mean=Key(None, FINITE, "of logit_normal and log_normal", kind=float),
        std=Key(None, POSITIVE, "of logit_normal and log_normal", kind=float),
        scale=Key(None, "[-1, 1.752)", "of mode: above 0, more times in the middle", kind=float),
        a=Key(None, POSITIVE, "of u_shaped (at most 100) and beta", kind=float),
        b=Key(None, POSITIVE, "of beta", kind=float),
        steps=Key(None, COUNT, "of step_starts: how many equal steps", "steps", kind=int),
        shift=Key(1.0, POSITIVE, "of SD3 and FLUX: above 1, more times near the noise"),
        stratified=Key(False, "", "one t from each of batch_size equally likely intervals"),
        importance=Key(False, "", "weights that keep the objective of uniform times"),
    ),
    "loss": Group(
        "what is minimised",
        target=Key("fm", ("fm", "rf"), "flow matching, or rectified flow"),
        prediction=Key(
            "velocity", ("velocity", "x1", "x0", "score", "v"), "what the network gives"
        ),
        distance=Key(
            "squared", NAME, "squared, the path's own; pseudo_huber, adaptive, or your own"
        ),
        c=Key(None, POSITIVE, "of pseudo_huber and adaptive", kind=float),
        power=Key(1.0, SHARE, "of adaptive"),
        tokens=Key(
            None,
            NAME,
            "of tokens: masked (of masks), cross_entropy, score_entropy, generalised_kl; None: "
            "masked, and of a uniform source cross_entropy",
            kind=str,
        ),
        weight=Key(
            "none",
            NAME,
            "none; velocity: another prediction's error counts as a velocity's; clipped_velocity: "
            "the same, 400 times at most; or your own",
        ),
    ),
    "flow_map": Group(
        "a network of two times, which jumps from one to the other in one evaluation",
        name=Key(
            "none",
            NAME,
            "none; by which identity it is trained: meanflow, improved_meanflow, lagrangian, "
            "semigroup, shortcut, consistency, alpha_flow, or your own my_module:Name",
        ),
        teacher=Key(None, TEXT, "a trained run, whose flow it learns; None: the data's", kind=str),
        guidance=Key(1.0, FINITE, "the scale w that is built into what it learns; 1: none"),
        kappa=Key(0.5, "(-inf, 1)", "of guidance without a teacher: the network's own share"),
        guidance_max=Key(
            None,
            "(1, inf)",
            "the scale w becomes an input of the network, learned from 1 to this; None: it is none",
            kind=float,
        ),
        span=Key(
            None,
            ("sorted", "any", "dyadic", "to_data"),
            "the distribution of the two times; None: the identity's own",
            kind=str,
        ),
        levels=Key(7, "[1, 24]", "of dyadic: jumps of 1, 1/2, ..., and of 2^(1 - levels) at least"),
        diagonal=Key(0.5, SHARE, "of the examples, whose two times are one: they learn a velocity"),
        from_source=Key(0.0, SHARE, "of the other examples, whose first time is 0, as of one jump"),
        second_head=Key(False, "", "a second output that learns the velocity alone"),
        divergence=Key(
            False,
            "",
            "a second output, the average divergence, for log-likelihoods in few jumps; it needs "
            "flow_map.span=any",
        ),
        derivative=Key("jvp", ("jvp", "fd"), "in time: exact, or a finite difference"),
        averaged=Key(False, "", "the averaged network in the place of the frozen one"),
    ),
    "labels": Group(
        "what the model is told beside x and t",
        conditional=Key(True, "", "whether the model takes the labels of the data"),
        drop_rate=Key(
            0.1, SHARE, "for classifier-free guidance; of each condition without its own"
        ),
        drop_all=Key(0.0, SHARE, "of several conditions: the probability that all go together"),
        null=Key(None, "[0, inf)", "the class id of no class; one past the last class", kind=int),
        only=Key(
            None, TEXT, "of several conditions: which the model takes, e.g. age,sex", kind=str
        ),
    ),
    "optimizer": Group(
        "AdamW, clipped",
        learning_rate=Key(1e-3, POSITIVE, "the highest, after the warm-up"),
        schedule=Key("cosine", ("cosine", "constant"), "after a linear warm-up"),
        warmup_steps=Key(100, "[0, inf)", "of the learning rate, fewer than train.steps", "steps"),
        b1=Key(0.9, "[0, 1)", "decay of the first moment"),
        b2=Key(0.99, "[0, 1)", "decay of the second moment"),
        weight_decay=Key(0.0, "[0, inf)", "decoupled from the gradient"),
        clip_norm=Key(1.0, "[0, inf)", "the largest norm of a gradient; 0 does not clip"),
        skip_above=Key(
            0.0, "0 or (1, inf)", "leaves out steps of so many times the usual norm; 0: none"
        ),
    ),
    "lora": Group(
        "adapters that are trained in the place of the network, which --init_from gives",
        rank=Key(0, "[0, inf)", "of each adapter; 0: none, the network itself is trained"),
        alpha=Key(
            None, POSITIVE, "an adapter counts alpha / rank times; None: as rank", kind=float
        ),
        patterns=Key(
            None, TEXT, "of kernels, e.g. blocks/attention/*,blocks/mlp/*; None: all", kind=str
        ),
    ),
    "train": Group(
        "how long, and how often it reports",
        steps=Key(1000, COUNT, "updates of the parameters", "steps"),
        batch_size=Key(128, COUNT, "global, over all devices and processes", "examples"),
        accumulate=Key(1, COUNT, "parts into which a batch is split to save memory", "parts"),
        steps_per_call=Key(
            1, COUNT, "of the compiled program: more where steps take under 10 ms", "steps"
        ),
        ema=Key(0.9999, "[0, 1)", "decay of the averaged parameters"),
        frozen=Key(
            None,
            TEXT,
            "parameters that stay as they are, e.g. blocks/attention/*,patch/*",
            kind=str,
        ),
        seed=Key(0, "[0, 4294967295]", "of the parameters, the order of the data and every draw"),
        log_every=Key(50, COUNT, "from one line of the log to the next", "steps"),
        checkpoint_every=Key(500, COUNT, "from one checkpoint to the next", "steps"),
        val_every=Key(
            0, "[0, inf)", "from one held-out loss to the next; 0: at checkpoints only", "steps"
        ),
        sample_every=Key(500, "[0, inf)", "from one picture to the next; 0: none", "steps"),
        keep=Key(3, COUNT, "newest checkpoints that stay, beside the best one", "checkpoints"),
    ),
    "sample": Group(
        "how samples are drawn unless asked otherwise",
        guidance=Key(
            None,
            FINITE,
            "the scale w of classifier-free guidance, 1: none; None: 1.5, of a flow map 1, and "
            "model.guidance_scale where that is given",
            kind=float,
        ),
        solver=Key(
            None,
            NAME,
            "of the ODE or of the SDE, jumps, unmask, purity, tau_leap, or your own "
            "my_module:Name; None: heun, of a flow map jumps, of tokens unmask",
            kind=str,
        ),
        steps=Key(
            None, COUNT, "of the solver; None: 25, of jumps 1, of tokens 64", "steps", kind=int
        ),
        shift=Key(1.0, POSITIVE, "of the time grid: above 1, more steps near the noise"),
    ),
    "eval": Group(
        "the evaluation at the end",
        num=Key(1000, "0 or [2, inf)", "how many samples; 0: no evaluation", "samples"),
        reference=Key(5000, "[4, inf)", "how many real examples, at most", "examples"),
    ),
}


def default_config() -> ConfigDict:
    """Every configuration key with its default; a None is filled in by what the help names."""

    def value(key: Key) -> Any:
        return placeholder(key.value_type) if key.default is None else key.default

    config = ConfigDict(
        {
            name: ConfigDict({key: value(declared) for key, declared in group.keys.items()})
            for name, group in KEYS.items()
        }
    )
    return config.lock()


def check_config(config: ConfigDict) -> None:
    """Checks every number and every choice of words; a name is checked where it is looked up.

    Raises:
        InputError: some lie outside their ranges; each is named, with what came.
    """
    check_keys(KEYS, config)
