"""What the service and the dashboard share."""
