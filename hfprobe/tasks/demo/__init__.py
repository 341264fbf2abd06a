"""Try trained models on a local page: one picture, the answers of all models side by side."""
