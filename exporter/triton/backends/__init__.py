"""Python-based Triton backends that stand in for NVIDIA's onnxruntime and pytorch backends.

They run inside tritonserver, in an environment without the rest of stlab. For each of them
`exporter.triton.backend_directory` lays out a folder with ``model.py`` and, as the package
``stlab_backends``, its own subpackage and the shared one.
"""
