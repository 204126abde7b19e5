"""Streets: synthetic street scenes in Cityscapes layout."""
