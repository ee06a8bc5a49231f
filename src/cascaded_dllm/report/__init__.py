"""The report of a study: what its results say, with uncertainties, as one page and as one JSON file."""
