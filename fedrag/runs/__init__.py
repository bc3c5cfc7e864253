"""The run folder: what a run depends on, its checkpoints, its results."""
