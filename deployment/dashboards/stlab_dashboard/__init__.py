"""A read-only window on what the registry names, what is served and how fast it answers."""

__version__ = "0.1.0"
