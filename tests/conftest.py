"""What several tests share: one cache of the demo model's activations, and the demo itself."""

import pytest
from joblib import Memory

from encoding_nb.datasets import load_assembly


def pytest_collection_modifyitems(config, items):
    """Tests of one file go to one process of several, so that what they share is made once.

    All browser tests are one such group: they share a JupyterLab, and two at once would wait for each other.
    """
    if not config.pluginmanager.hasplugin("xdist"):
        return
    for item in items:
        browser = item.get_closest_marker("browser")
        item.add_marker(pytest.mark.xdist_group("browser" if browser else item.path.name))


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
