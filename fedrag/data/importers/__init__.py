"""Importers, one file a format. Each reads a source and returns sites; none of them writes."""
