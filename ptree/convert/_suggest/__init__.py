"""Proposals of tables: names of two sides collapsed into families, matched by shapes and names, doubts marked."""
