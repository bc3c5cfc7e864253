"""Importers, one file per format: each reads a source and returns sites; none of them writes."""
