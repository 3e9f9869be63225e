"""What is looked at: trees, specs and files as named leaves, a part of them chosen, read in chunks; files without JAX."""
