"""The numeric kernels of the CPU path: C where it could be built, torch with the same results elsewhere."""
