"""The `fedrag` command, one file per verb group."""
