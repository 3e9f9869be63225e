"""Export JAX functions as ONNX: trace to a jaxpr, translate each primitive by a rule, write the file."""
