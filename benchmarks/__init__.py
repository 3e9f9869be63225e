"""Scripts that measure ptree beside others: `python -m benchmarks --list`. A package, since others have one of this name."""
