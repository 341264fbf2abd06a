"""What a run is: its settings, recipes, checks and files."""
