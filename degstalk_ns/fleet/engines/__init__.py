"""Where steps run: each launcher is a thin module."""
