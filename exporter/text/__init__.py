"""Text for people: without passwords, and without control characters."""
