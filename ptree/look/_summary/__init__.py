"""The summary: rows of parameters, folded, as text, data and HTML; output shapes of the layers."""
