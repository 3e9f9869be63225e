"""A model before training: declared and seen spread of leaves, activations and gradients."""
