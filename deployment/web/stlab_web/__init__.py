"""ASGI middleware that the service and the dashboard share."""
