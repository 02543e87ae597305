"""Networks: modules that predict a velocity, and adapters for modules written elsewhere.

Every network here is called as `model.apply({"params": params}, x, t, labels)` and returns an array
of the shape of `x`; `adapters` turns that, or an NNX or Equinox module, into the pure function
`apply_fn(params, x, t, labels)` that the rest of the library takes.

| module | holds |
|---|---|
| `mlp` | `MLP`, for vectors |
| `dit` | `DiT` and its presets, for images |
| `embed` | what the two share: time, class and position embeddings |
| `checks` | what they refuse, and what they say |
| `adapters` | `from_linen`, `from_nnx`, `from_equinox` |

A network knows nothing of flow matching: it sees arrays, and imports no other part of the library.
"""
