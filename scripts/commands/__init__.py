"""The subcommands of `degstalk`, one module each."""
