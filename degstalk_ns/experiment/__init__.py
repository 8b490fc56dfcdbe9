"""The experiments of the paper: every variant on every subject, measured alike."""
