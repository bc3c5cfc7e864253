"""The report of a run: one self-contained HTML page, made without torch."""
