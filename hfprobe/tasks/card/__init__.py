"""Write the folder of a model for the Hugging Face hub: its files, and a card with the results on test."""
