"""Training, evaluation and inference on objects that are passed in, without configs."""
