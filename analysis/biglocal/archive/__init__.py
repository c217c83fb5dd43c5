"""The deposit: what an archive keeps, and what those who judge it ask for. Nothing but the command line imports it."""
