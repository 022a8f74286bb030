"""Who the server is and who we are: TLS, tokens, and what is refused before anything is sent."""

import os
import shutil
import subprocess
import tempfile
import unittest

import grpc

import lancet
from fake_server import PATIENCE, FakeServer
from lancet._channel import is_loopback


class ChecksTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name

    def write(self, name, text):
        path = os.path.join(self.folder, name)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        return path

    def refused(self, field, *arguments, **options):
        with self.assertRaises(lancet.InvalidArgument) as caught:
            lancet.Client(*arguments, **options)
        self.assertEqual(caught.exception.field, field)
        return str(caught.exception)

    def test_tokens(self):
        path = self.write("token", "secret\n")
        with lancet.Client(token_file=path) as client:
            self.assertNotIn("secret", repr(client._connection))
        self.refused("token_file", token_file=path, token="other")
        self.refused("token_file", token_file=self.write("empty", "\n"))
        self.refused("token_file", token_file=self.write("words", "two words"))
        self.refused("token_file", token_file=self.write("long", "x" * 5000))
        self.assertIn("cannot read", self.refused("token_file", token_file=path + "x"))
        message = self.refused("token", token="two words")
        self.assertNotIn("two", message)

    def test_a_token_does_not_go_over_a_network_unencrypted(self):
        self.assertIn("use TLS", self.refused("token", "example.com:50051", token="secret"))
        lancet.Client("example.com:50051", token="secret", tls=True).close()
        lancet.Client("unix:/run/lancet.sock", token="secret").close()

    def test_tls_files(self):
        self.refused("tls.ca", tls=lancet.Tls(ca=os.path.join(self.folder, "none.pem")))
        self.assertIn("PEM", self.refused("tls.ca", tls=lancet.Tls(ca=self.write("ca.pem", "rubbish"))))
        self.refused("tls", tls=lancet.Tls(cert=self.write("cert.pem", "-----BEGIN CERTIFICATE-----")))

    def test_others(self):
        self.refused("server", "")
        self.refused("timeout", timeout=float("inf"))
        self.refused("rejoin_for", rejoin_for=float("nan"))

    def test_loopback(self):
        for server in ("127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "localhost:1", "unix:/x", "dns:localhost:1",
                       "ipv4:127.0.0.1:1"):
            self.assertTrue(is_loopback(server), server)
        for server in ("10.0.0.1:1", "localhost.example.com:1", "127.0.0.1.example.com:1", "[::2]:1", "localhost",
                       "dns://127.0.0.1/example.com:1"):
            self.assertFalse(is_loopback(server), server)


@unittest.skipUnless(shutil.which("openssl"), "openssl, which makes the certificates, is not here")
class TlsTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.folder = folder.name
        for name in ("server", "client"):
            subprocess.run(
                ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                 "-days", "1", "-subj", "/CN=lancet.test", "-addext", "subjectAltName=DNS:lancet.test", "-keyout",
                 cls.path(f"{name}.key"), "-out", cls.path(f"{name}.pem")], check=True, capture_output=True)

    @classmethod
    def path(cls, name):
        return os.path.join(cls.folder, name)

    def server(self, **options):
        def read(name):
            with open(self.path(name), "rb") as file:
                return file.read()

        if options:
            options["root_certificates"] = read("client.pem")
        pair = (read("server.key"), read("server.pem"))
        return FakeServer(credentials=grpc.ssl_server_credentials([pair], **options))

    def client(self, server, **files):
        tls = lancet.Tls(server_name="lancet.test", **{field: self.path(name) for field, name in files.items()})
        return lancet.Client(f"127.0.0.1:{server.port}", tls=tls, token="secret", timeout=PATIENCE)

    def no_way_in(self, server, client):
        with client, self.assertRaises((lancet.Unavailable, lancet.DeadlineExceeded)):
            client.model_info(timeout=1)
        self.assertEqual(server.metadata, [])

    def test_encrypted(self):
        with self.server() as server:
            self.no_way_in(server, lancet.Client(server.address))
            with self.client(server, ca="server.pem") as client:
                self.assertEqual(client.model_info().name, "fake")
            self.assertEqual(server.metadata[0]["authorization"], "Bearer secret")

    def test_another_root_or_name(self):
        with self.server() as server:
            self.no_way_in(server, self.client(server, ca="client.pem"))
            self.no_way_in(server, lancet.Client(server.address, tls=lancet.Tls(ca=self.path("server.pem"))))

    def test_mutual(self):
        with self.server(require_client_auth=True) as server:
            self.no_way_in(server, self.client(server, ca="server.pem"))
            with self.client(server, ca="server.pem", cert="client.pem", key="client.key") as client:
                self.assertEqual(client.model_info().name, "fake")


if __name__ == "__main__":
    unittest.main()
