"""Floating-point operations of a function, counted from its jaxpr."""
