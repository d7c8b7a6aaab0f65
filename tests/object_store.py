"""A real object store on loopback: SeaweedFS with an S3 gateway that requires access keys."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

_PROGRAM = Path(sys.executable).with_name("weed")
KEY, SECRET = "supsup-tests", "not-a-secret-anywhere-else"


class ObjectStore:
    """A server process and its data folder. A test can stop the server, and start it again with the same content."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        (folder / "data").mkdir(parents=True)
        identity = {
            "name": "tests",
            "credentials": [{"accessKey": KEY, "secretKey": SECRET}],
            "actions": ["Admin", "Read", "Write", "List"],
        }
        (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
        self._ports = _free_ports(8)
        self._process: subprocess.Popen[bytes] | None = None
        self.environment = {
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self._ports[6]}",
        }

    def start(self) -> None:
        names = ("master", "master.grpc", "volume", "volume.grpc", "filer", "filer.grpc", "s3", "s3.grpc")
        ports = dict(zip(names, self._ports, strict=True))
        flags = [f"-{name.replace('.grpc', '.port.grpc') if '.' in name else f'{name}.port'}={port}"
                 for name, port in ports.items()]  # fmt: skip
        with open(self._folder / "log", "ab") as log:
            self._process = subprocess.Popen(
                [
                    str(_PROGRAM), "server", f"-dir={self._folder / 'data'}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
                    "-filer", "-s3", f"-s3.config={self._folder / 's3.json'}", "-s3.port.iceberg=0", "-s3.port.lance=0",
                    "-master.telemetry=false", "-master.volumeSizeLimitMB=64", "-volume.max=0", *flags,
                ],
                stdout=log, stderr=log, cwd=self._folder, start_new_session=True,
            )  # fmt: skip
        self._wait()

    def _wait(self) -> None:
        """Waits until the server answers and a bucket can be created."""
        import fsspec

        made = fsspec.filesystem(
            "s3", key=KEY, secret=SECRET, endpoint_url=self.environment["AWS_ENDPOINT_URL"],
            client_kwargs={"region_name": "us-east-1"}, use_listings_cache=False,
        )  # fmt: skip
        deadline = time.monotonic() + 90
        while True:
            assert self._process is not None
            assert self._process.poll() is None, (self._folder / "log").read_text()[-2000:]
            try:
                with socket.create_connection(("127.0.0.1", self._ports[6]), timeout=1):
                    pass
                made.pipe_file("tests/there", b"yes")  # also creates the bucket if it does not exist
                return
            except Exception:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.3)

    def stop(self) -> None:
        """Kills the server, as in a crash."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None


def _free_ports(count: int) -> list[int]:
    held = [socket.socket() for _ in range(count)]
    for one in held:
        one.bind(("127.0.0.1", 0))
    ports = [int(one.getsockname()[1]) for one in held]
    for one in held:
        one.close()
    return ports
