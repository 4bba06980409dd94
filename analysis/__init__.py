import os

# Before NumPy is loaded: matrices here are small and trials many, so that threads of its own would only be in the way
# of those of `analysis.study.scores`; and the last bits of a product no longer depend on the number of cores.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
