"""Statistics of each leaf: moments, quantiles, numbers that are not finite."""
