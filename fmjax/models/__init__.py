"""Networks: modules that predict a velocity, and adapters for modules written elsewhere.

Every network here is called as `model.apply({"params": params}, x, t, labels)` and returns an array
of the shape of `x`; `adapters` turns that, or an NNX or Equinox module, into the pure function
`apply_fn(params, x, t, labels)` that the rest of the library takes.

| module | holds |
|---|---|
| `mlp` | `MLP`, for vectors |
| `dit` | `DiT` and its presets, for images |
| `unet` | `UNet` and its presets, for images |
| `token_transformer` | `TokenTransformer` and its presets, for sequences of tokens |
| `mmdit` | `MMDiT`, Stable Diffusion 3 and 3.5 |
| `flux` | `Flux`, FLUX.1 dev and schnell |
| `transformer` | the blocks of `DiT`, and which axis of a mesh splits their parameters |
| `unet_blocks` | the blocks of `UNet`, and which axis of a mesh splits their parameters |
| `joint` | the blocks of `MMDiT` and `Flux` in which image and text attend as one |
| `text_to_image` | what these two take, and which way they count time |
| `rope` | rotary embeddings of position |
| `tokens` | `on_one_hot`, from a network of floats to one of tokens; `without_time` |
| `presets` | a network from a table of published sizes |
| `attention` | attention, and which kernel computes it |
| `embedders` | embeddings of times, labels, guidance scale and position |
| `context` | conditions that are not added to it: sequences, to attend to, and images |
| `parts` | outputs beside the velocity: the divergence, a second velocity head |
| `input_checks` | what the networks refuse, and what they say |
| `flops` | what is counted of a network's operations |
| `autoencoders` | `TinyAutoencoder` and `AutoencoderKL`, from images to latents and back |
| `pretrained` | `load` and `save`, networks with published weights |
| `adapters` | `from_linen`, `from_nnx`, `from_equinox`, `extend_params` |

A network knows nothing of flow matching: it sees arrays, and imports only what both halves share.
Only `pretrained` knows more: the path that published weights were trained on.
A network of your own is used as these are. Beside `init` and `apply` it may have a method
``forward_flops(shape)``, for the log of a run, and a class attribute ``sharding_rules``, for a mesh
that splits parameters.
"""
