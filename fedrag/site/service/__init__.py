"""A site that runs as a service: its node, its worker, and the checks before a reply leaves."""
