"""What a model remembers of the data that it was trained on."""
