"""Keys, secrets and certificates: what the parties of a deployment know each other by."""
