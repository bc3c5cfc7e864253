"""Search over a site's passages."""
