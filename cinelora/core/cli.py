"""The error that is the user's to mend: one line naming the file or field, the value, the remedy."""


class UserError(Exception):
    """Bad input. Entry points print the message alone and exit with status 2."""
