"""Table: a conversion as rows of patterns and operations, its plan, and the tree that it makes."""
