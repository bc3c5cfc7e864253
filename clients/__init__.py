"""What a partner site is handed."""
