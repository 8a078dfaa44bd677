"""Compare aliases, repository and servers, and name what differs."""
