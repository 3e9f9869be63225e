"""The names and layouts that each layer of `ptree.nn` has in other frameworks, and the table of a whole model."""
