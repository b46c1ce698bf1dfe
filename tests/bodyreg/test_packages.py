"""Every package says what it is, and every public name it lists can be had."""

from importlib import import_module

import pytest

PACKAGES = ("data.synthetic", "losses", "models", "training", "evaluation")


@pytest.mark.parametrize("name", PACKAGES)
def test_public_names_can_be_had(name):
    package = import_module(f"bodyreg.{name}")
    assert len(package.__doc__) > 60 and len(package.__all__) == len(set(package.__all__)) > 3
    for public in package.__all__:
        value = getattr(package, public)
        assert getattr(value, "__module__", package.__name__).startswith(package.__name__) or not callable(value)
    with pytest.raises(AttributeError, match="Its public names"):
        package.no_such_name  # noqa: B018
