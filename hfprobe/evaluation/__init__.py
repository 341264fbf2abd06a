"""From predictions to figures: results, metrics, statistics, comparison, profile."""
