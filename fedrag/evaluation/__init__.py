"""What answers and rankings are worth."""
