"""Numbers with the words they belong to."""


def counted(number: int, one: str, several: str = "") -> str:
    """Write a number with its noun, in the plural (with an s where `several` is not given) unless 1."""
    return f"{number:,} {one if number == 1 else several or one + 's'}"
