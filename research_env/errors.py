"""Failures that a user can fix. Each message names the value that was wrong and the fix."""


class ResearchError(Exception):
    """Base of every failure this package raises on purpose. `str(error)` is fit to show to a person."""


class ConfigurationError(ResearchError, ValueError):
    """A keyword argument or setting that cannot work; raised before any work starts."""


class DataMissing(ResearchError, FileNotFoundError):
    """A data set that is not on this machine; the message holds the commands that bring it."""

    def __str__(self) -> str:  # FileNotFoundError would print errno and repr
        return str(self.args[0])


class DataInvalid(ResearchError, ValueError):
    """A file whose content is not what its format promises; the message names file, line and field."""


class RetrievalError(ResearchError, RuntimeError):
    """A search that could not be carried out. Raised to the caller, never shown to the policy as text."""


class RetrievalUnavailable(RetrievalError):
    """The backend did not answer, or was overloaded: the same search may succeed a little later."""
