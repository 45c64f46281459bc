"""Placeholder, completed below."""


class UserError(Exception):
    """A mistake of the user's: one line that says what was found, what was wanted and what to do. Scripts print it and exit 1."""
