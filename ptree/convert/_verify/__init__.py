"""Verify a conversion by numbers: run both functions on the same inputs, compare every value, name the first that differs and
what its error looks like."""
