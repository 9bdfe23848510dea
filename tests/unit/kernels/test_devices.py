"""A device that torch cannot use is an error that lists the usable devices."""

from __future__ import annotations

import pytest

from groundup.core.errors import ResourceError
from groundup.kernels.machine import usable_device


@pytest.mark.parametrize("name", ["foo", "", "cuda:99", "cpu:x", "meta", "mtia", "hpu", "xla", "privateuseone"])
def test_an_unusable_device_is_rejected_by_name(name: str) -> None:
    """torch raises various exceptions, and has devices ("meta") without values."""
    with pytest.raises(ResourceError, match=r"give one of: cpu") as caught:
        usable_device(name)
    assert f'device = "{name}"' in caught.value.value


def test_the_cpu_is_accepted() -> None:
    assert usable_device("cpu") == "cpu"
