"""The report of a run: one HTML page that needs nothing but itself. No torch here."""
