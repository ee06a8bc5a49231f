"""Studies: arms that are trained, measured and sampled at equal cost, part by part, by any number of processes."""
