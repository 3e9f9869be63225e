"""The report: one HTML page of a file, or of the differences of two."""
