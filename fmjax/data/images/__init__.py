"""A user's own images, from folders or from an .npz, checked and decoded."""
