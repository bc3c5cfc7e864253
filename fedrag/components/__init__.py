"""What the federation trains: all that is true of one component alone, and the dict of them."""
