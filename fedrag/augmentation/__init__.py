"""More questions to learn from: written from passages by a model, or asked by people and answered by one."""
