"""Why answers are wrong, what to change about it, and what a generator forgot."""
