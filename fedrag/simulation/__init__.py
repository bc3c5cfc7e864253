"""A federation on one machine: check, plan, train, compare, measure."""
