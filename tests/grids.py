"""Grids of options and the numbers that layers are compared on."""

import itertools

import jax
import numpy as np

import ptree as pt
from ptree import initializers as I


def grid(**options):
    """Every combination of options, as parameters of a test."""
    return [dict(zip(options, values, strict=True)) for values in itertools.product(*options.values())]


def shown(options):
    return "-".join(f"{name}={value}" for name, value in options.items())


def drawn(layer, x, seed=0):
    """Parameters in which nothing is zero or one."""
    return pt.init(layer.spec(x), jax.random.key(seed), {"**": I.normal(0.3)})


def data(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")
