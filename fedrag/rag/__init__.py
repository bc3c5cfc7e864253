"""The pipeline that answers questions from passages."""
