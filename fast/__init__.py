"""What is only faster: each gives the same results as its definition in the root."""
