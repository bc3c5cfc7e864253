"""A site's data: load, check, import, split, partition and chunk it."""
