"""The definition of a cascade: its stage lengths, and which tokens of a window every stage keeps. No torch."""
