"""What the exporter needs of the operating system; imports nothing of the exporter but errors."""
