import pytest

from fmjax.data.load import load


@pytest.fixture(scope="session")
def digits(tmp_path_factory):
    """The embedded set, prepared once in a data directory of its own."""
    return load("digits", tmp_path_factory.mktemp("digits"))


@pytest.fixture
def data_dir(tmp_path, monkeypatch):
    """An empty data directory, which is also the default one."""
    path = tmp_path / "sets"
    monkeypatch.setenv("TFDS_DATA_DIR", str(path))
    return path
