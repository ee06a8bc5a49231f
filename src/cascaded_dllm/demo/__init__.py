"""A page on which a cascade is written with: keywords, every stage as it appears, edited, and gone on from."""
