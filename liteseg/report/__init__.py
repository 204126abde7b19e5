"""The report page of a run or an evaluation, and visualizations of labels."""
