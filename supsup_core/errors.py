"""What can go wrong for a reason a user can mend."""


class SupSupError(Exception):
    """Base of every error this project raises on purpose. Its text is one line for a user."""


class InputError(SupSupError):
    """The user's input (a config value, a file, a dataset) cannot be used. The text names the remedy."""


class DivergedError(SupSupError):
    """Training has come to a loss that is no number. The text says where, and what to lower."""


class CorruptError(SupSupError):
    """Bytes on disk are not the bytes that were written: a checksum, a header or a length is wrong."""
