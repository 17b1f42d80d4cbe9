"""A model, data and a loss of the user's: built, tried, trained and scored."""
