"""Low-rank factorisation: one linear node becomes two thinner ones."""
