"""A user's own arrays, from an ``.npz``, an ``.npy`` or a ``.csv``, checked and split."""
