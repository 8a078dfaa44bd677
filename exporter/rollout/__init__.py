"""Publish a bundle, activate it on live servers, verify it there, and undo all of it."""
