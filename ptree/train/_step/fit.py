"""fit: a short training loop."""


def fit(): ...
