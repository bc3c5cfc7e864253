"""Scores of answers and rankings, and the evaluation and comparison of runs."""
