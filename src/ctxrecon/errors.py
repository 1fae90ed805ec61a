"""The one exception that bad input raises."""


class InputError(ValueError):
    """Bad input, refused at the door.

    The message is one sentence a person can act on: what was expected, what came, what to do.
    The command line prints it and exits with status 2; nothing else is caught there.
    """
