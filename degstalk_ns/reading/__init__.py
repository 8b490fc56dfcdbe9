"""Files of unknown origin: nothing that they hold is run, and nothing is taken up before its size is known."""
