"""A read-only dashboard of the registry, the model repository and the servers."""

__version__ = "0.1.0"
