"""Shows a run in TensorBoard, MLflow, Weights & Biases or trackio, from the log that it writes anyway."""
