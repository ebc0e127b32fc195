"""One process per rank: needs torch, numpy and the standard library, nothing else."""
