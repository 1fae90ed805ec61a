"""The one exception that bad input raises, and the check that most options need."""

_LONGEST = 1000
_CONTROL = {
    code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"
}


class InputError(ValueError):
    """Bad input, refused at the door.

    The message is one sentence a person can act on: what was expected, what came, what to do.
    The command line prints it and exits with status 2; nothing else is caught there.
    """


def check_counts(**counts: int) -> None:
    """Refuse options that are not whole numbers from 1 on.

    Raises:
        InputError: naming the option.
    """
    for name, value in counts.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise InputError(f"expected {name} as a whole number from 1 on, got {value!r}")


def printable(text: str) -> str:
    """Text for a terminal: control characters become ``\\x1b`` and so on, line ends stay.

    Names of files, prompts and headers may hold the escape sequences that a terminal obeys.
    """
    return text.translate(_CONTROL)


def one_line(message: str) -> str:
    """A message for a terminal, in one line; of one that is too long the middle is left out."""
    line = printable(" ".join(message.split()))
    if len(line) <= _LONGEST:
        return line
    half = _LONGEST // 2
    return f"{line[: half - 2]} … {line[-half + 1 :]}"
