"""An HTTP service for models of an MLflow registry, in process or through Triton."""

__all__ = ["__version__"]

__version__ = "0.1.0"
