"""Train by rules: optimisers by path, freezing that freezes, one step, state that follows parameters, low-rank views.

This room stands on `nn`, whose layers multiply with kernels that stand for others, and on `look`, which observes a step.
"""
