"""Child processes that a service keeps alive."""
