"""The same artifacts on an S3 server of this machine, through the driver that people use."""

from __future__ import annotations

import pytest

from artifact_contract import ID, ArtifactContract, content, make
from workbench.core.errors import StoreError
from workbench.core.settings import read_settings
from workbench.store import remote as remote_module
from workbench.store.database import open_store

pytest.importorskip("s3fs", reason="the extra s3 is not installed")
pytest.importorskip("moto.server", reason="moto[server] is not installed")


@pytest.fixture(scope="module")
def endpoint():
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(endpoint, monkeypatch, request):
    import s3fs

    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2-secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setattr(remote_module, "_PAUSES_S", (0, 0))
    name = f"bucket-{abs(hash(request.node.name)) % 10**9}"
    files = s3fs.S3FileSystem(endpoint_url=endpoint, skip_instance_cache=True)
    files.mkdir(name)
    return name


def settings_of(tmp_path, endpoint, bucket):
    # as a person would: the AWS variable, not an option of ours
    return read_settings(
        {
            "WORKBENCH_HOME": str(tmp_path / "home"),
            "WORKBENCH_DATABASE_URL": f"sqlite:///{tmp_path / 'workbench.db'}",
            "WORKBENCH_USER": "tester",
            "WORKBENCH_ARTIFACTS_URL": f"s3://{bucket}/some/prefix",
            "AWS_ENDPOINT_URL": endpoint,
        }
    )


class TestS3(ArtifactContract):
    @pytest.fixture
    def settings(self, tmp_path, endpoint, bucket):
        return settings_of(tmp_path, endpoint, bucket)


def told_of(store, call):
    with pytest.raises(StoreError) as caught:
        call(store)
    told = str(caught.value)
    assert "\n" not in told
    assert "hunter2" not in told
    return told


def test_a_bucket_that_is_not_there_is_named(tmp_path, endpoint, bucket):
    store = open_store(settings_of(tmp_path, endpoint, "no-such-bucket"))
    told = told_of(store, make)
    assert "s3://no-such-bucket/some/prefix: cannot write" in told
    assert not store.artifacts.exists("model", ID)
    store.engine.dispose()


def test_a_server_that_is_down_is_named_and_nothing_is_lost(tmp_path, endpoint, bucket):
    store = open_store(settings_of(tmp_path, "http://127.0.0.1:9", bucket))
    told = told_of(store, make)
    assert f"s3://{bucket}/some/prefix: cannot write" in told
    assert "network" in told
    store.engine.dispose()
    again = open_store(settings_of(tmp_path, endpoint, bucket))
    assert content(make(again)) == {"file": b"content"}
    again.engine.dispose()
