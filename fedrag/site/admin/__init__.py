"""The verbs of a site's administrator: check, measure, audit, purge."""
