"""The closed set of operations that a conversion may apply to arrays; each knows its inverse."""
