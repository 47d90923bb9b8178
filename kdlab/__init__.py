"""kdlab: knowledge distillation for image classification on PyTorch Lightning.

The package is imported in milliseconds: import what you need from its parts, for example
``from kdlab.methods import LogitMatching`` or ``from kdlab.models import ResNet20``.
"""

__version__ = "0.1.0"
