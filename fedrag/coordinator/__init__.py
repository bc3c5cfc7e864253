"""The server of a deployment: its service, its runs, its console."""
