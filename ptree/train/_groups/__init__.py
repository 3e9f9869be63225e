"""Optimisers for groups of leaves: groups and frozen leaves, clipping, factors by path, layers of stacks one by one, gradients
of the leaves that are trained."""
