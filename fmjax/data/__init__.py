"""Data: 2-D toys, image sets through tensorflow_datasets, stored pairs, a step-indexed pipeline.

Each module is imported by name, so that only what is used is loaded:

- `load`: opens a data set by its name;
- `dataset`: what a data set is to the rest of the package;
- `pipeline`: shuffling, batching, sharding, prefetch; the door to grain;
- `pixels`: between the 256 levels of a pixel and [-1, 1];
- `toys` and `random_images`: sets that are drawn, numpy only;
- `tfds/`: sets on disk, and how they are written and read; the door to tensorflow_datasets;
- `images/`: a user's own images, from a folder; `tables/`: a user's own arrays, from a file;
- `read_own` and `own`: which of them a path leads to, and what they give;
- `resampling`: examples with weights;
- `pairs/`: stored pairs (x0, x1, label);
- `prepare` and `train_command`: the command that prepares a set, and what it says to do next.
"""
