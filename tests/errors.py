"""How tests assert an error."""

import pytest


def says(error, text, call, *args, **options):
    """The call raises just this error, word for word; returns it."""
    with pytest.raises(error) as raised:
        call(*args, **options)
    assert str(raised.value) == text
    return raised.value
