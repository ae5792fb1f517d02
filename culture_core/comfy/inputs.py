"""What comes in over a node's links: ComfyUI lets a graph put any constant in the place of a link."""

from typing import TypeVar

T = TypeVar("T")


def expect(value: object, kind: type[T], source: str) -> T:
    """The value, which must be of a kind.

    Args:
        source: who gives such a value, for the message.

    Raises:
        ValueError: where it is something else.
    """
    if not isinstance(value, kind):
        raise ValueError(f"{value!r:.60} stands where the output of {source} is needed: connect that.")
    return value


def expect_all(values: object, kind: type[T], source: str) -> list[T]:
    """A list of values of a kind.

    Raises:
        ValueError: where it is something else.
    """
    return [expect(value, kind, source) for value in expect(values, list, source)]
