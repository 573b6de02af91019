"""Free memory of machine and container, and rates that are of this machine's order."""

import numpy as np
import psutil
import pytest

from encoding_nb import _machine
from encoding_nb._machine import blas_limited, n_threads


@pytest.fixture
def roomy(monkeypatch):
    """A machine with 16 GB to spare."""
    memory = type("Memory", (), {"available": 16_000_000_000})
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)


def test_the_machine_is_the_limit_where_no_container_is(tmp_path, roomy):
    assert _machine.free_memory(control_groups=tmp_path) == 16_000_000_000


@pytest.mark.parametrize("version", [1, 2])
def test_a_container_is_the_limit_where_it_allows_less(tmp_path, roomy, version):
    folder = tmp_path if version == 2 else tmp_path / "memory"
    names = {
        1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        2: ("memory.max", "memory.current", "inactive_file"),
    }[version]
    folder.mkdir(exist_ok=True)
    (folder / names[0]).write_text("2000000000\n")
    (folder / names[1]).write_text("1500000000\n")
    assert _machine.free_memory(control_groups=tmp_path) == 500_000_000
    # files that the kernel keeps in memory while there is room are given back
    (folder / "memory.stat").write_text(f"anon 5\n{names[2]} 300000000\n")
    assert _machine.free_memory(control_groups=tmp_path) == 800_000_000


def test_a_container_without_a_limit_says_max(tmp_path, roomy):
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("1500000000\n")
    assert _machine.free_memory(control_groups=tmp_path) == 16_000_000_000


def test_a_container_above_its_limit_has_nothing_left(tmp_path, roomy):
    (tmp_path / "memory.max").write_text("100\n")
    (tmp_path / "memory.current").write_text("150\n")
    assert _machine.free_memory(control_groups=tmp_path) == 0


def test_rates_are_measured_once_and_are_a_processors():
    rates = _machine.rates()
    assert _machine.rates() is rates
    with blas_limited(1):
        beside_a_fit = _machine.rates()
    assert _machine.rates() is rates
    assert (beside_a_fit is rates) == (n_threads() == 1)
    for rate in (rates.single, rates.double, rates.elements):
        assert np.isfinite(rate) and 1e7 < rate < 1e16


def test_rates_are_measured_once_for_each_number_of_threads(monkeypatch):
    """The test above cannot tell where BLAS has one thread anyway."""
    found = {}
    for n in (1, 2, 1, 2):
        monkeypatch.setattr(_machine, "n_threads", lambda n=n: n)
        assert found.setdefault(n, _machine.rates()) is _machine.rates()
    assert found[1] is not found[2]
    _machine._rates.cache_clear()  # these were not measured with that many threads
