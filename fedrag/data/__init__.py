"""A site's data: load, check, import, split, deal and chunk it."""
