"""The stand-in for NVIDIA's pytorch backend; Triton imports ``model`` from this folder."""
