"""Generator, retriever and adapters, and where they are fetched from."""
