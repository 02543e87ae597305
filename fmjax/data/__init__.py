"""Data: 2-D toys, image sets through tensorflow_datasets, and a step-indexed pipeline.

Each module is imported by name, so that only what is used is loaded:

- `toy`: the 2-D distributions, numpy only;
- `dataset`: what a data set is to the rest of the package;
- `builders`: data sets by name, and the TFDS builders that write them; `records` reads them. These
  two are the door to tensorflow_datasets, and `directory` knows where the sets lie;
- `prepare`: the command line that turns a user's `images` (`image_folder`, `image_arrays`) into a
  set with a name;
- `pipeline`: the door to grain: shuffling, batching, sharding, prefetch;
- `pixels`: between the 256 levels of a pixel and [-1, 1].
"""
