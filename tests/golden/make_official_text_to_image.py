"""Makes text_to_image/official/: the tiny networks of diffusers under their official names.

    pip install diffusers torch safetensors
    python tests/golden/make_official_text_to_image.py

The weights are those of `make_text_to_image.py`, to be run first, so that the outputs are too.
diffusers has the way from the official names to its own; the way back is here, and is held to it:
at the published sizes diffusers' converter gives back each number that went in, of matrices with
one column, since it moves whole rows (it takes FLUX.1's at no other size).

`layouts.json` there has the official names and shapes at the published sizes, folded as those of
`make_text_to_image.py`.
"""

import json
import re

import torch
from diffusers.loaders.single_file_utils import (
    convert_flux_transformer_checkpoint_to_diffusers,
    convert_sd3_transformer_checkpoint_to_diffusers,
)
from make_text_to_image import FLUX, FOLDER, PUBLISHED, SD3, folded, published
from safetensors.torch import load_file, save_file

OFFICIAL = FOLDER / "official"
EMBED = "time_text_embed"
SD3_NAMES = {
    "pos_embed.pos_embed": "pos_embed",
    "pos_embed.proj": "x_embedder.proj",
    f"{EMBED}.timestep_embedder.linear_1": "t_embedder.mlp.0",
    f"{EMBED}.timestep_embedder.linear_2": "t_embedder.mlp.2",
    f"{EMBED}.text_embedder.linear_1": "y_embedder.mlp.0",
    f"{EMBED}.text_embedder.linear_2": "y_embedder.mlp.2",
    "context_embedder": "context_embedder",
    "transformer_blocks.*.norm1.linear": "joint_blocks.*.x_block.adaLN_modulation.1",
    "transformer_blocks.*.norm1_context.linear": "joint_blocks.*.context_block.adaLN_modulation.1",
    "transformer_blocks.*.attn.norm_q": "joint_blocks.*.x_block.attn.ln_q",
    "transformer_blocks.*.attn.norm_k": "joint_blocks.*.x_block.attn.ln_k",
    "transformer_blocks.*.attn.norm_added_q": "joint_blocks.*.context_block.attn.ln_q",
    "transformer_blocks.*.attn.norm_added_k": "joint_blocks.*.context_block.attn.ln_k",
    "transformer_blocks.*.attn.to_out.0": "joint_blocks.*.x_block.attn.proj",
    "transformer_blocks.*.attn.to_add_out": "joint_blocks.*.context_block.attn.proj",
    "transformer_blocks.*.attn2.norm_q": "joint_blocks.*.x_block.attn2.ln_q",
    "transformer_blocks.*.attn2.norm_k": "joint_blocks.*.x_block.attn2.ln_k",
    "transformer_blocks.*.attn2.to_out.0": "joint_blocks.*.x_block.attn2.proj",
    "transformer_blocks.*.ff.net.0.proj": "joint_blocks.*.x_block.mlp.fc1",
    "transformer_blocks.*.ff.net.2": "joint_blocks.*.x_block.mlp.fc2",
    "transformer_blocks.*.ff_context.net.0.proj": "joint_blocks.*.context_block.mlp.fc1",
    "transformer_blocks.*.ff_context.net.2": "joint_blocks.*.context_block.mlp.fc2",
    "norm_out.linear": "final_layer.adaLN_modulation.1",
    "proj_out": "final_layer.linear",
}
FLUX_NAMES = {
    f"{EMBED}.timestep_embedder.linear_1": "time_in.in_layer",
    f"{EMBED}.timestep_embedder.linear_2": "time_in.out_layer",
    f"{EMBED}.guidance_embedder.linear_1": "guidance_in.in_layer",
    f"{EMBED}.guidance_embedder.linear_2": "guidance_in.out_layer",
    f"{EMBED}.text_embedder.linear_1": "vector_in.in_layer",
    f"{EMBED}.text_embedder.linear_2": "vector_in.out_layer",
    "context_embedder": "txt_in",
    "x_embedder": "img_in",
    "transformer_blocks.*.norm1.linear": "double_blocks.*.img_mod.lin",
    "transformer_blocks.*.norm1_context.linear": "double_blocks.*.txt_mod.lin",
    "transformer_blocks.*.attn.norm_q": "double_blocks.*.img_attn.norm.query_norm",
    "transformer_blocks.*.attn.norm_k": "double_blocks.*.img_attn.norm.key_norm",
    "transformer_blocks.*.attn.norm_added_q": "double_blocks.*.txt_attn.norm.query_norm",
    "transformer_blocks.*.attn.norm_added_k": "double_blocks.*.txt_attn.norm.key_norm",
    "transformer_blocks.*.attn.to_out.0": "double_blocks.*.img_attn.proj",
    "transformer_blocks.*.attn.to_add_out": "double_blocks.*.txt_attn.proj",
    "transformer_blocks.*.ff.net.0.proj": "double_blocks.*.img_mlp.0",
    "transformer_blocks.*.ff.net.2": "double_blocks.*.img_mlp.2",
    "transformer_blocks.*.ff_context.net.0.proj": "double_blocks.*.txt_mlp.0",
    "transformer_blocks.*.ff_context.net.2": "double_blocks.*.txt_mlp.2",
    "single_transformer_blocks.*.norm.linear": "single_blocks.*.modulation.lin",
    "single_transformer_blocks.*.attn.norm_q": "single_blocks.*.norm.query_norm",
    "single_transformer_blocks.*.attn.norm_k": "single_blocks.*.norm.key_norm",
    "single_transformer_blocks.*.proj_out": "single_blocks.*.linear2",
    "norm_out.linear": "final_layer.adaLN_modulation.1",
    "proj_out": "final_layer.linear",
}
QKV, ADDED = ("to_q", "to_k", "to_v"), ("add_q_proj", "add_k_proj", "add_v_proj")
SD3_JOINED = {
    "joint_blocks.*.x_block.attn.qkv": ("transformer_blocks.*.attn.", QKV),
    "joint_blocks.*.context_block.attn.qkv": ("transformer_blocks.*.attn.", ADDED),
    "joint_blocks.*.x_block.attn2.qkv": ("transformer_blocks.*.attn2.", QKV),
}
FLUX_JOINED = {
    "double_blocks.*.img_attn.qkv": ("transformer_blocks.*.attn.", QKV),
    "double_blocks.*.txt_attn.qkv": ("transformer_blocks.*.attn.", ADDED),
    "single_blocks.*.linear1": (
        "single_transformer_blocks.*.",
        ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"),
    ),
}


def swapped(x: torch.Tensor) -> torch.Tensor:
    """Scale and shift become shift and scale."""
    return torch.cat(x.chunk(2)[::-1])


def official(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights of diffusers under their official names."""
    flux = any(name.startswith("single_") for name in state)
    names, joins = (FLUX_NAMES, FLUX_JOINED) if flux else (SD3_NAMES, SD3_JOINED)
    depth = 1 + max(int(n.split(".")[1]) for n in state if n.startswith("transformer_blocks"))
    last = () if flux else (f"joint_blocks.{depth - 1}.context_block.adaLN_modulation.1",)
    out = {}
    for name, x in state.items():
        number = (re.search(r"_blocks\.(\d+)\.", name) or ["", ""])[1]
        stem, end = name.replace(f"_blocks.{number}.", "_blocks.*."), ""
        if stem not in names:
            stem, _, end = stem.rpartition(".")
        if stem in names:
            theirs = names[stem].replace("*", number)
            both = theirs in ("final_layer.adaLN_modulation.1", *last)
            end = "scale" if theirs.endswith(("query_norm", "key_norm")) else end
            out[".".join(filter(None, (theirs, end)))] = swapped(x) if both else x
    for theirs, (stem, parts) in joins.items():
        for i in range(1000):
            for end in ("weight", "bias"):
                found = [f"{stem}{part}.{end}".replace("*", str(i)) for part in parts]
                if found[0] in state:
                    whole = torch.cat([state[name] for name in found])
                    out[f"{theirs}.{end}".replace("*", str(i))] = whole
    assert sum(x.numel() for x in out.values()) == sum(x.numel() for x in state.values())
    return out


def check_with_diffusers(name: str, shapes: dict[str, torch.Size]) -> None:
    """Their converter gives back what `official` took, at the published sizes."""
    flux = "guidance_embeds" in PUBLISHED[name]
    convert = (
        convert_flux_transformer_checkpoint_to_diffusers
        if flux
        else convert_sd3_transformer_checkpoint_to_diffusers
    )
    state = {key: torch.rand(shape[0], *[1] * (len(shape) - 1)) for key, shape in shapes.items()}
    back = convert(official(state))
    assert back.keys() == state.keys()
    assert all(torch.equal(back[key], x) for key, x in state.items())


def main() -> None:
    """Writes the weights, and the published layouts."""
    OFFICIAL.mkdir(exist_ok=True)
    for name in (*SD3, *FLUX):
        state = load_file(FOLDER / name / "diffusion_pytorch_model.safetensors")
        save_file(
            {key: x.contiguous() for key, x in official(state).items()},
            OFFICIAL / f"{name}.safetensors",
        )
    blocks = []
    for name in PUBLISHED:
        state = published(name)
        check_with_diffusers(name, {key: x.shape for key, x in state.items()})
        shapes = {key: list(x.shape) for key, x in official(state).items()}
        rows = [f"{json.dumps(key)}: {json.dumps(row)}" for key, row in folded(shapes).items()]
        blocks.append(f"{json.dumps(name)}: {{\n" + ",\n".join(rows) + "\n}")
        print(name, len(shapes))
    (OFFICIAL / "layouts.json").write_text("{\n" + ",\n".join(blocks) + "\n}\n")


if __name__ == "__main__":
    main()
