"""What server and sites exchange, and what the server makes of it."""
