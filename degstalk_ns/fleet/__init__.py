"""Many people at once: every step of every subject, on whatever machines there are."""
