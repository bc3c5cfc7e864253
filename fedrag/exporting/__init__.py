"""What leaves fedrag for other programs: models, prompts, model cards, training sets."""
