"""Errors that are addressed to the person who typed the command."""

import sys
from collections.abc import Callable

EXIT_INTERRUPTED = 75
"""Exit status of what was told to stop and goes on with the same command (EX_TEMPFAIL of sysexits.h)."""


class UserError(ValueError):
    """Input that cannot be used; the message says what is wrong, why it matters and what to do."""


class UnusableInput(UserError):
    """One of many inputs (a row, a picture) that cannot be used; `reason` is a short slug to count by."""

    def __init__(self, reason: str, message: str):
        super().__init__(message)
        self.reason = reason

    def __reduce__(self):
        # A worker process hands this to its parent; the default would forget the second argument.
        return type(self), (self.reason, str(self))


def run_command(main: Callable[[], int | None]) -> None:
    """Run a command's `main` and exit: a `UserError` becomes one line on standard error and exit status 2."""
    try:
        code = main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        raise SystemExit(2) from None
    raise SystemExit(code or 0)
