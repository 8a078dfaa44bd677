"""The status command: compare aliases, repository and servers, and report the differences."""
