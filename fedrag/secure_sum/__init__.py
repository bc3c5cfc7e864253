"""A sum of the sites' vectors in which no single one can be seen, in two messages over the coordinator."""
