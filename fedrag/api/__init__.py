"""What a Python program calls, beside the commands: sites and models from memory, one site's training, runs."""
