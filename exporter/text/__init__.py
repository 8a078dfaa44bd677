"""Text for people: passwords cut out, control characters escaped."""
