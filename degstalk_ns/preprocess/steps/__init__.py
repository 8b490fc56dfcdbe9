"""What each step of preprocessing computes, apart from files and records."""
