"""Retrievers and generators of fedrag as classes of LlamaIndex, LangChain and Haystack, and passages from a store."""
