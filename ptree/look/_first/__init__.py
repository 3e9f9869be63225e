"""A model before training: declared and seen standard deviation of leaves, sizes of activations and gradients."""
