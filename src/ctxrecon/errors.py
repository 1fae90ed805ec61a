"""The one exception that bad input raises, and the check that most options need."""


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
