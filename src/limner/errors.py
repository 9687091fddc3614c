"""Errors that are the user's to mend: shown as one clear message, never as a traceback."""

USER_ERROR = 2
"""Exit code of a mistake in what was given; 130 is Ctrl-C, 1 a defect of limner."""


class UserError(Exception):
    """A mistake in what was given: the message names the file, row or key, and says what to do."""


class Reject(Exception):
    """One item that cannot be used: the job records its id with this reason, counts it and goes on."""

    def __init__(self, reason: str):
        """Keep the reason, a short sentence without the item's id."""
        super().__init__(reason)
        self.reason = reason
