"""Flower grids for one machine: in this process, and over Ray actors."""
