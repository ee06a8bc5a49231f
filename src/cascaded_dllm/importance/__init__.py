"""How much every word of a text matters: the order in which a cascade keeps tokens."""
