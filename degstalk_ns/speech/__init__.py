"""What is said, and what lips do for it."""
