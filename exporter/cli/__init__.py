"""The command line, one module per command; the only package that imports Typer and rich."""

from exporter.cli.app import export_main, main

__all__ = ["export_main", "main"]
