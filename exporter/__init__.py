"""Exports MLflow model versions to Triton model repositories, and proves them on the way."""
