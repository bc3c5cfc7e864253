"""What the models are: generator, retriever and their adapters."""
