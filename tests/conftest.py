"""What several tests share: one cache of the demo model's activations, and the demo itself."""

import pytest
from joblib import Memory

from encoding_nb.datasets import load_assembly


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    """Two halves that take about as long go to two processes: the browser's tests, and all others in their order.

    So what tests of a half share is made once, and their order is the same in every run. Before xdist's own
    hook, which writes the groups into the tests' names: without arguments it would come first, and see none.
    """
    if not config.pluginmanager.hasplugin("xdist"):
        return
    for item in items:
        browser = item.get_closest_marker("browser") is not None
        item.add_marker(pytest.mark.xdist_group("browser" if browser else "others"))


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
