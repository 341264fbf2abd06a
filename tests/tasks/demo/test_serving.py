import http.client
import json
import logging
import re
import socket

import numpy as np
import pytest

from helpers.image_kinds import KINDS
from helpers.models import cat_model, refused
from helpers.servers import answering
from hfprobe.tasks.demo import serving
from hfprobe.tasks.demo.measure import LoadedModel, Models
from hfprobe.tasks.demo.serving import serve
from hfprobe.tasks.predict.measure import predict_images

PICTURE = KINDS["turned JPEG"](90, 60)[0]


@pytest.fixture(scope="module")
def network():
    return cat_model()


@pytest.fixture(scope="module")
def models(network):
    return Models([LoadedModel("simple-cnn", *network)], max_pixels=10_000)


@pytest.fixture
def server(models, tmp_path):
    with answering(serve(models, host="127.0.0.1", port=0, feedback=tmp_path / "kept")) as server:
        yield server


@pytest.fixture
def ask(server):
    """Status and JSON of a request; the body of a page as text."""

    def call(path, content=None, *, method=None, **headers):
        port = server.server_address[1]
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        sent = {"Origin": f"http://127.0.0.1:{port}"} | {key.replace("_", "-"): value for key, value in headers.items()}
        sent = {key: value for key, value in sent.items() if value is not None}
        connection.request(method or ("GET" if content is None else "POST"), path, content, sent)
        reply = connection.getresponse()
        text = reply.read().decode()
        connection.close()
        assert "Python" not in str(reply.headers)
        return reply.status, json.loads(text) if reply.headers["Content-Type"] == "application/json" else text

    return call


def error_of(answer, status):
    assert answer[0] == status
    assert list(answer[1]) == ["error"]
    assert "\n" not in answer[1]["error"]
    assert "Traceback" not in answer[1]["error"]
    return answer[1]["error"]


def test_answers_are_those_of_predict_to_the_bit(ask, network):
    status, found = ask("/answer", PICTURE)
    expected = predict_images([PICTURE], model=network[0], processor=network[1])
    assert status == 200
    assert (found["width"], found["height"]) == (90, 60)
    (answer,) = found["answers"]
    assert np.array_equal(np.float32(answer["probabilities"]), expected.probabilities[0])
    assert answer["labels"] == expected.class_names
    assert answer["seen"].startswith("data:image/png;base64,")


def test_which_squares_decided(ask):
    status, (found,) = ask("/decisive", PICTURE)
    assert (status, found["model"], found["label"]) == (200, "simple-cnn", "cat")
    assert np.shape(found["falls"]) == (8, 8)


def test_the_page_runs_only_its_own_script_and_loads_nothing(server):
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1])
    connection.request("GET", "/")
    reply = connection.getresponse()
    text, policy = reply.read().decode(), reply.headers["Content-Security-Policy"]
    assert "unsafe" not in policy
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "frame-ancestors 'none'" in policy
    assert reply.headers["X-Content-Type-Options"] == "nosniff"
    assert reply.headers["Server"].strip() == "hfprobe"
    assert not re.search(r"https?://|<[^>]* (style|on\w+)=", text)


@pytest.mark.parametrize("path", ["/etc/passwd", "/../../etc/passwd", "/%2e%2e/etc/passwd", "//etc/passwd", "/answer"])
def test_no_path_is_a_file(ask, path):
    assert error_of(ask(path), 404) == "There is only one page: /."


def test_a_picture_for_an_unknown_address_is_refused(ask):
    assert error_of(ask("/other", PICTURE), 404) == "Pictures are sent to /answer, /decisive, /feedback."


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS"])
def test_another_method_is_refused(ask, method):
    assert error_of(ask("/answer", b"", method=method), 501).startswith("Not Implemented. Open http://127.0.0.1:")


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1", "192.0.2.1:{port}", "", "[:{port}", "a@b:c"],
)
def test_another_host_is_refused(ask, server, host):
    host = host.format(port=server.server_address[1])
    for path, content in (("/", None), ("/answer", PICTURE)):
        said = error_of(ask(path, content, Host=host, Origin=f"http://{host}"), 421)
        assert said == f"Open {server.url} instead."


@pytest.mark.parametrize("host", ["localhost:{port}", "LOCALHOST:{port}", "127.0.0.1:{port}", "[::1]:{port}"])
def test_the_names_of_this_machine_are_accepted(ask, server, host):
    host = host.format(port=server.server_address[1])
    assert ask("/", Host=host)[0] == 200
    assert ask("/answer", PICTURE, Host=host, Origin=f"http://{host}")[0] == 200


@pytest.mark.parametrize(
    "origin", [None, "null", "http://evil.example", "https://127.0.0.1:{port}", "http://127.0.0.1:1"]
)
def test_pictures_from_another_page_are_refused(ask, server, origin):
    origin = origin and origin.format(port=server.server_address[1])
    for path in ("/answer", "/decisive", "/feedback?label=cat"):
        said = error_of(ask(path, PICTURE, Origin=origin), 403)
        assert said == "Only the page of this server may send pictures to it."
    assert not server.feedback.folder.exists()


@pytest.mark.parametrize("length", ["33554433", "9" * 5000])
def test_too_many_bytes_are_refused_before_they_are_read(ask, length):
    said = error_of(ask("/answer", b"", method="POST", Content_Length=length), 413)
    assert said == "The picture has more than 32 MB. Choose a smaller one."


@pytest.mark.parametrize("length", ["-1", "1.5", "x", "+5", ""])
def test_a_length_that_is_no_number_is_refused(ask, length):
    said = error_of(ask("/answer", b"", method="POST", Content_Length=length), 411)
    assert said == "The length of the picture in bytes is missing."


@pytest.mark.parametrize("content", [b"", b"no picture", KINDS["RGB PNG"](101, 100)[0]])
@pytest.mark.parametrize("path", ["/answer", "/decisive", "/feedback?label=cat"])
def test_what_is_no_picture_or_too_large_is_refused(ask, server, path, content):
    assert error_of(ask(path, content), 422).startswith("This picture cannot be read: ")
    assert not server.feedback.folder.exists()


def test_an_upload_that_is_cut_off_is_refused(server):
    host, port = server.server_address
    head = f"POST /answer HTTP/1.1\r\nHost: {host}:{port}\r\nOrigin: http://{host}:{port}\r\nContent-Length: 99\r\n\r\n"
    with socket.create_connection((host, port)) as connection:
        connection.sendall(head.encode() + b"short")
        connection.shutdown(socket.SHUT_WR)
        reply = b"".join(iter(lambda: connection.recv(4096), b""))
    assert reply.startswith(b"HTTP/1.0 400 ")
    assert reply.endswith(b'{"error": "The picture was cut off. Send it again."}')


@pytest.mark.parametrize(
    ("error", "status"), [(KeyError("/secret/path"), 500), (MemoryError(), 507), (OSError(28, "No space left"), 507)]
)
def test_a_failure_tells_the_client_nothing_of_the_machine(ask, models, monkeypatch, caplog, error, status):
    def fail(content):
        raise error

    monkeypatch.setattr(models, "answer", fail)
    with caplog.at_level(logging.ERROR, logger="hfprobe"):
        said = error_of(ask("/answer", PICTURE), status)
    assert said == "The server failed. The terminal that it runs in says why."
    (line,) = caplog.messages
    assert line.startswith("A picture was not answered: ")


def test_feedback_is_kept_under_a_name_of_its_content(ask, server):
    status, found = ask("/feedback?label=dog&name=../../x.png", PICTURE)
    assert status == 200
    assert re.fullmatch(r"[0-9a-f]{16}\.jpg", found["file"])
    assert (server.feedback.folder / found["file"]).read_bytes() == PICTURE
    assert (server.feedback.folder / "labels.csv").read_text().split() == ["file,label", f"{found['file']},dog"]


@pytest.mark.parametrize("query", ["", "?label=", "?label=yak", "?label=../cat", "?label=cat%0Adog"])
def test_feedback_with_an_unknown_class_is_refused(ask, server, query):
    assert "is not a class of these models." in error_of(ask(f"/feedback{query}", PICTURE), 400)
    assert not server.feedback.folder.exists()


def test_a_port_in_use_and_a_host_of_another_machine_are_one_line(models, server, tmp_path):
    port = server.server_address[1]
    refused(
        lambda: serve(models, host="127.0.0.1", port=port, feedback=tmp_path),
        f"--port {port} cannot be listened on: Address already in use. Pass another port, or 0 for a free one.",
    )
    for host in ("192.0.2.1", "no such host", "x" * 300):
        refused(lambda host=host: serve(models, host=host, port=0, feedback=tmp_path), "--host '")


def test_with_a_host_that_others_reach_addresses_are_accepted_and_names_are_not(models, tmp_path, monkeypatch):
    server = serve(models, host="0.0.0.0", port=0, feedback=tmp_path)
    monkeypatch.setattr(serving.Handler, "__init__", lambda self: None)
    handler = serving.Handler()
    handler.server = server
    assert not server.is_loopback
    for host, accepted in (("192.0.2.7", True), ("evil.example", False), ("localhost", True)):
        handler.headers = http.client.HTTPMessage()
        handler.headers["Host"] = f"{host}:{server.server_address[1]}"
        if accepted:
            handler._check_host()
        else:
            with pytest.raises(serving.RefusedError):
                handler._check_host()
    server.server_close()
