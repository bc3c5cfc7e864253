"""What a coordinator is handed."""
