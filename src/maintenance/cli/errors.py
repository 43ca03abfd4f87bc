"""How a command ends that does not end well."""


class Ended(Exception):  # noqa: N818 - an interrupted wait is an end, and no error
    """Ends the command with one line on stderr and an exit status.

    Attributes:
        status: The exit status.
    """

    def __init__(self, message: str, status: int) -> None:
        """Remember both."""
        super().__init__(message)
        self.status = status
