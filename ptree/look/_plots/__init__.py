"""Plots with matplotlib: distributions, kernels, histories, singular values, similarity."""
