"""The errors of this package: one base, and one class for each kind of failure."""


class MaintenanceError(Exception):
    """The base of every error that this package raises on purpose."""


class ConfigurationError(MaintenanceError, ValueError):
    """An option, a URL or an environment variable is wrong; the message says what to write instead."""


class StoreError(MaintenanceError):
    """The store could not be reached, or what it holds is not a flag. Never contains a password."""


class LateError(StoreError):
    """The store has not answered in time; it may be slow, and not away."""


class FlagError(StoreError):
    """The store answers, but the flag's row is missing or wrong."""


class RegistrationError(StoreError):
    """The store answers, but has no place for instances, or the role may not write there."""


class LateRegistrationError(RegistrationError, LateError):
    """The store answers, but somebody else keeps instances from being written."""
