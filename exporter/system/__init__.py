"""What the exporter needs of the operating system; imports nothing else of the exporter."""
