"""What several tests share: one cache of the demo model's activations, and the demo itself."""

import pytest
from joblib import Memory

from encoding_nb.datasets import load_assembly


@pytest.fixture(scope="session")
def activation_folder(tmp_path_factory):
    """A cache folder of this test session, so that the demo's stories are read by the model once."""
    return tmp_path_factory.mktemp("activations")


@pytest.fixture(scope="session")
def memory(activation_folder):
    return Memory(activation_folder, verbose=0)


@pytest.fixture(scope="session")
def demo():
    return load_assembly("demo")
