"""Where models come from (the hub, PyPI, a folder), and the store of the fetched ones."""
