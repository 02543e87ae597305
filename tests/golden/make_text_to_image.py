"""Makes text_to_image/: tiny networks of diffusers with seeded weights, and what they compute.

    pip install diffusers torch
    python tests/golden/make_text_to_image.py

Each folder is as diffusers saves a model, its weights rounded to float16, and `reference.npz`
beside them: inputs and outputs in the convention of fmjax, t = 1 for data, channels last, velocity
towards the data, and the gradient with respect to x of sum(probe * velocity). Computed in float64
from the rounded weights.

`layouts.json` there has the name and the shape of every tensor of the published networks, built by
diffusers at full size without memory from the published configurations: under ``a.*.b``, shape,
first block and number of blocks. `tests/models/pretrained/test_text_to_image.py` holds fmjax to all
of it without torch.
"""

import json
import re
from importlib.metadata import version
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).resolve().parent / "text_to_image"
PACKAGES = ("diffusers", "torch")
TEXT, POOLED, CHANNELS = 10, 6, 4
READ_TIMES = ("timestep_embedder.linear_1.weight", "guidance_embedder.linear_1.weight")
_HEADS = {"num_attention_heads": 2, "attention_head_dim": 8}
_TEXTS = {"joint_attention_dim": TEXT, "pooled_projection_dim": POOLED}
_SD3 = {
    **_HEADS,
    **_TEXTS,
    "caption_projection_dim": 16,
    "in_channels": CHANNELS,
    "out_channels": CHANNELS,
    "sample_size": 8,
    "pos_embed_max_size": 6,
}
_FLUX = {
    **_HEADS,
    **_TEXTS,
    "in_channels": 4 * CHANNELS,
    "num_layers": 2,
    "num_single_layers": 2,
    "axes_dims_rope": (2, 2, 4),
}
SD3 = {
    "sd3-medium": _SD3 | {"num_layers": 3},
    "sd3.5-medium": _SD3
    | {"num_layers": 4, "qk_norm": "rms_norm", "dual_attention_layers": (0, 1)},
    "sd3.5-large": _SD3 | {"num_layers": 2, "qk_norm": "rms_norm"},
}
FLUX = {
    "flux-dev": _FLUX | {"guidance_embeds": True},
    "flux-schnell": _FLUX | {"guidance_embeds": False},
}
PUBLISHED_SD3 = {"joint_attention_dim": 4096, "pos_embed_max_size": 192}
PUBLISHED = {
    "SD3-medium": PUBLISHED_SD3
    | {"num_layers": 24, "num_attention_heads": 24, "caption_projection_dim": 1536},
    "SD3.5-medium": PUBLISHED_SD3
    | {"num_layers": 24, "num_attention_heads": 24, "caption_projection_dim": 1536}
    | {"pos_embed_max_size": 384, "qk_norm": "rms_norm"}
    | {"dual_attention_layers": tuple(range(13))},
    "SD3.5-large": PUBLISHED_SD3
    | {"num_layers": 38, "num_attention_heads": 38, "caption_projection_dim": 2432}
    | {"qk_norm": "rms_norm"},
    "FLUX.1-dev": {"guidance_embeds": True},
    "FLUX.1-schnell": {"guidance_embeds": False},
}


def inputs() -> dict[str, np.ndarray]:
    """Two images that are not square, of two texts at two times."""
    rng = np.random.default_rng(0)
    shape = (2, 8, 6, CHANNELS)
    return {
        "x": rng.normal(size=shape).astype(np.float32),
        "t": np.array([0.25, 0.875], np.float32),
        "text": rng.normal(size=(2, 3, TEXT)).astype(np.float32),
        "pooled": rng.normal(size=(2, POOLED)).astype(np.float32),
        "guidance": np.array([1.0, 3.5], np.float32),
        "probe": rng.normal(size=shape).astype(np.float32),
    }


def set_weights(model, seed: int) -> None:
    """Nothing is left at 0 or 1: products of variance 1 / size, biases and norms near theirs.

    The products that read cosines of times and guidance scales are small: angles go up to 3500,
    which float32 knows to about 2e-4.
    """
    import torch

    rng = np.random.default_rng(seed)
    for name, p in sorted(model.named_parameters()):
        scale = 0.2 if p.ndim == 1 else p[0].numel() ** -0.5
        scale *= 0.1 if name.endswith(READ_TIMES) else 1.0
        middle = float(p.ndim == 1 and bool((p == 1).all()))
        values = middle + scale * rng.normal(size=p.shape)
        p.data = torch.from_numpy(values.astype(np.float16)).double()
    for buffer in model.buffers():
        buffer.data = buffer.half().to(buffer.dtype)


def _tensors(given: dict) -> dict:
    """The inputs as their networks take them: channels first, time the other way round."""
    import torch

    out = {name: torch.from_numpy(a.astype(np.float64)) for name, a in given.items()}
    for name in ("x", "probe"):
        out[name] = out[name].permute(0, 3, 1, 2)
    out["sigma"] = 1 - out["t"]
    return out


def run_sd3(model, given: dict):
    """Their output, noise minus data, (batch, channels, height, width)."""
    return model(
        hidden_states=given["x"],
        encoder_hidden_states=given["text"],
        pooled_projections=given["pooled"],
        timestep=1000 * given["sigma"],
    ).sample


def run_flux(model, given: dict):
    """As `run_sd3`, packed and unpacked by diffusers' own pipeline."""
    import torch
    from diffusers import FluxPipeline

    batch, channels, height, width = given["x"].shape
    ids = FluxPipeline._prepare_latent_image_ids(
        batch, height // 2, width // 2, "cpu", torch.float64
    )
    packed = FluxPipeline._pack_latents(given["x"], batch, channels, height, width)
    out = model(
        hidden_states=packed,
        encoder_hidden_states=given["text"],
        pooled_projections=given["pooled"],
        timestep=given["sigma"],
        guidance=given["guidance"] if model.config.guidance_embeds else None,
        img_ids=ids,
        txt_ids=torch.zeros(given["text"].shape[1], 3),
    ).sample
    # In pixels of an autoencoder that makes latents 8 times smaller.
    return FluxPipeline._unpack_latents(out, 8 * height, 8 * width, 8)


def _make(name: str, model, run, seed: int) -> None:
    import torch

    given = inputs()
    set_weights(model, seed)
    tensors = _tensors(given)
    tensors["x"].requires_grad_()
    velocity = -run(model, tensors)
    (tensors["probe"] * velocity).sum().backward()
    arrays = {"velocity": velocity, "gradient": tensors["x"].grad}
    made = {k: a.detach().permute(0, 2, 3, 1).numpy().astype(np.float32) for k, a in arrays.items()}
    versions = json.dumps({package: version(package) for package in PACKAGES})
    model.to(torch.float16).save_pretrained(FOLDER / name)
    np.savez_compressed(
        FOLDER / name / "reference.npz", **given, **made, versions=np.array(versions)
    )


def folded(shapes: dict[str, list[int]]) -> dict[str, list]:
    """Names with ``*`` in the place of the block: shape, first block and number of blocks."""
    out: dict[str, list] = {}
    for name, shape in shapes.items():
        blocks = re.search(r"blocks\.(\d+)\.", name)
        if not blocks:
            out[name] = [shape, None, None]
            continue
        i = int(blocks[1])
        key = name.replace(f"blocks.{i}.", "blocks.*.")
        if key in out and out[key][0] != shape:  # of the last block, which is another one
            key = name
        first = out[key][1] if key in out else i
        out[key] = [shape, first, i + 1 - first] if key != name else [shape, None, None]
    return out


def published(name: str) -> dict:
    """The tensors of a network of `PUBLISHED`, without memory."""
    import torch
    from diffusers import FluxTransformer2DModel, SD3Transformer2DModel

    config = PUBLISHED[name]
    kind = FluxTransformer2DModel if "guidance_embeds" in config else SD3Transformer2DModel
    with torch.device("meta"):
        return kind(**config).state_dict()


def layouts() -> dict[str, dict[str, list]]:
    """Those of `PUBLISHED`, folded."""
    made = {}
    for name in PUBLISHED:
        state = published(name)
        made[name] = folded({key: list(x.shape) for key, x in state.items()})
        print(name, len(state), sum(x.numel() for x in state.values()))
    return made


def main() -> None:
    """Writes a folder for each network, and the published layouts."""
    from diffusers import FluxTransformer2DModel, SD3Transformer2DModel

    lines = [
        f"{json.dumps(name)}: {{\n"
        + ",\n".join(f"{json.dumps(key)}: {json.dumps(row)}" for key, row in rows.items())
        + "\n}"
        for name, rows in layouts().items()
    ]
    (FOLDER / "layouts.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")
    for seed, (name, config) in enumerate(SD3.items()):
        _make(name, SD3Transformer2DModel(**config).double(), run_sd3, seed)
    for seed, (name, config) in enumerate(FLUX.items(), len(SD3)):
        _make(name, FluxTransformer2DModel(**config).double(), run_flux, seed)


if __name__ == "__main__":
    main()
