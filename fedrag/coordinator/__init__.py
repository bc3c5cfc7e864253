"""What the server does in a deployment."""
