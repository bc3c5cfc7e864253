"""What a partner site does."""
