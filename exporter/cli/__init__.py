"""The command line: the only place that knows Typer and rich."""

from exporter.cli.app import export_main, main

__all__ = ["export_main", "main"]
