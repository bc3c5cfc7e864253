"""The verbs of a site's administrator: check, measure, purge."""
