"""Differential privacy of a site's questions: clipping, noise, what they add up to, and the ledger of it."""
