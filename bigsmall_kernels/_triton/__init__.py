"""The Triton kernels: a file per op, its host function taking exactly the op's arguments. Imported when first run."""
