"""``python -m exporter.cli``."""

from exporter.cli.app import main

main()
