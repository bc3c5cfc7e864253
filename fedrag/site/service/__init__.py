"""The processes of a site that runs as a service."""
