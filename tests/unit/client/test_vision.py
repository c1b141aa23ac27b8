"""In a process of its own: what is imported cannot be imported anew."""

import importlib.util
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(importlib.util.find_spec("torchvision") is None, reason="torchvision is not installed")

PROGRAM = """
import torch
from fedstep.client.vision import load_torchvision

model = load_torchvision("models").resnet18(weights=None, num_classes=10).eval()
assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 10)
image, label = load_torchvision("datasets").FakeData(size=1, image_size=(3, 8, 8))[0]
assert load_torchvision("transforms.v2").functional.to_image(image).shape == (3, 8, 8)
assert load_torchvision() is load_torchvision()
print("works")
"""


def test_data_sets_transforms_and_models_work() -> None:
    result = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=100, check=False)
    assert result.stdout == "works\n", result.stderr
