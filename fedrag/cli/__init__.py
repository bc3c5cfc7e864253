"""The `fedrag` command, one file a verb group."""
