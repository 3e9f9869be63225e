"""State of optimisers by parameter: which slots belong to which leaf, carried into a changed model, loaded into one; leaves of
another size."""
