"""What a run is, before it starts: dataclasses, recipes, checks."""
