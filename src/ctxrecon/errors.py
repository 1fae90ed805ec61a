"""The exception for invalid input, and helpers for its messages."""

_LONGEST = 1000
_CONTROL = {
    code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"
}


class InputError(ValueError):
    """Invalid input.

    The message states what was expected, what was given, and what to do. The command line prints
    it without a traceback and exits with status 2.

    Example:
        >>> from ctxrecon import Measurement
        >>> from ctxrecon.errors import InputError
        >>> try:
        ...     Measurement.from_arrays([1, 2, 3])
        ... except InputError as error:
        ...     print(error)
        expected k-space as a NumPy array or a torch tensor, got list: convert it with np.asarray
    """


def check_counts(**counts: int) -> None:
    """Validate that options are positive whole numbers.

    Raises:
        InputError: If one is not; the message names it.
    """
    for name, value in counts.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise InputError(f"expected {name} as a whole number of 1 or more, got {value!r}")


def printable(text: str) -> str:
    """Replace control characters by escapes such as ``\\x1b``, except for line ends and tabs.

    File names, prompts and headers may contain escape sequences that a terminal would execute.
    """
    return text.translate(_CONTROL)


def one_line(message: str) -> str:
    """Return a message as one printable line; the middle of a very long one is omitted."""
    line = printable(" ".join(message.split()))
    if len(line) <= _LONGEST:
        return line
    half = _LONGEST // 2
    return f"{line[: half - 2]} … {line[-half + 1 :]}"
