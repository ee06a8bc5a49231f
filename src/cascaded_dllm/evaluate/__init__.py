"""Numbers about models and texts, each with its unit, its error and what it leaves out."""
