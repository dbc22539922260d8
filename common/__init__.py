"""Everything the models share; knows no model."""
