"""Numbers in sentences."""


def batches(number: float) -> str:
    """Return a number of batches in words.

    >>> batches(1), batches(1200)
    ('1 batch', '1,200 batches')
    """
    return f"{number:,} batch{'es' * (number != 1)}"
