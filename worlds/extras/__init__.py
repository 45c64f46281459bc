"""Beside the worlds: a teacher's data sets, published benchmarks, the sandbox, tools of a user."""
