"""How a model reads a batch, fast: shared prefixes, trees, threads, CUDA graphs."""
