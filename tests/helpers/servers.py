"""HTTP servers that answer in a thread while a test asks them."""

import contextlib
import threading


@contextlib.contextmanager
def answering(server):
    """The server, which answers until the block ends."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
