"""A server of the page within the process of a test."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from cascaded_dllm.demo.server import DemoServer
from cascaded_dllm.sample.cascade import Cascade


@contextmanager
def serving(cascade: Cascade, host: str = "127.0.0.1") -> Iterator[DemoServer]:
    server = DemoServer(cascade, host=host, port=0)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.close()
