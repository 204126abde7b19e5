"""Training, evaluation and inference over objects that are handed in; knows no configs."""
