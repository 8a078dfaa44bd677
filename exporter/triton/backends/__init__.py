"""Backends that the embedded server runs; they travel in the package as its data."""
