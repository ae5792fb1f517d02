"""The paper's whole study in miniature: two systems, from training data to tables, in one report."""
