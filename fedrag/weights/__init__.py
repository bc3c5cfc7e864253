"""Where models come from: hub, PyPI or a folder, and the store that keeps them."""
