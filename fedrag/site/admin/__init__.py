"""What a site's administrator asks for: check, measure, purge."""
