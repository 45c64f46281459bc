"""Plumbing that nobody needs for understanding: files, tokens, settings, weights, logs."""
