"""Says whether a server that uses OpenSSL would accept a client certificate.

Reads one JSON request from each line of its input and writes one JSON verdict for each to its output, in the same
order. A request is {"id", "chain", "roots", "key"}, all PEM, the chain leaf first. A verdict is {"id", "ok", "stage",
"reason", "partial"}; the stage is `request`, `roots` (the server cannot load the bundle), `load` (the client cannot
load the pair) or `handshake`.

A complete TLS 1.3 handshake is made in memory. The server has OpenSSL's default flags, purpose and security level, so
that nothing here decides how strict OpenSSL is. `partial` says that it would accept the pair with partial chains,
where each certificate of the bundle ends a path, as in Envoy. OpenSSL knows only the real time.
"""

import json
import os
import ssl
import subprocess
import sys
import tempfile


def server_pair():
    """A certificate for the server side; the client does not look at it."""
    with tempfile.TemporaryDirectory() as directory:
        key, certificate = (os.path.join(directory, name) for name in ("key.pem", "cert.pem"))
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
            + ["-subj", "/CN=server", "-keyout", key, "-out", certificate],
            check=True,
            capture_output=True,
        )
        with open(key, "rb") as first, open(certificate, "rb") as second:
            return first.read() + second.read()


def load_pair(context, pem):
    """OpenSSL loads a chain only from a file; this one is in memory."""
    file = os.memfd_create("pair")
    try:
        with os.fdopen(os.dup(file), "wb") as writer:
            writer.write(pem)
        context.load_cert_chain(f"/proc/self/fd/{file}")
    finally:
        os.close(file)


class Judge:
    def __init__(self):
        self.own = server_pair()

    def server(self, roots):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.verify_mode = ssl.CERT_REQUIRED
        context.num_tickets = 0
        load_pair(context, self.own)
        context.load_verify_locations(cadata=roots)
        return context

    def client(self, pair):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        load_pair(context, pair)
        return context

    def judge(self, request):
        """Where and why the pair is refused, and whether partial chains would change that."""
        try:
            server = self.server(request["roots"])
        except (ssl.SSLError, ValueError) as error:
            return ("roots", reason(error)), False
        try:
            client = self.client((request["key"] + request["chain"]).encode())
        except (ssl.SSLError, ValueError) as error:
            return ("load", reason(error)), False
        failure = handshake(server, client)
        if failure is None:
            return None, False
        server.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        return failure, handshake(server, client) is None


def handshake(server_context, client_context):
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = server_context.wrap_bio(to_server, to_client, server_side=True)
    client = client_context.wrap_bio(to_client, to_server)
    # Client hello; the server's flight; the client's certificate and finish; the server's verdict.
    for side in (client, server, client, server):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
        except ssl.SSLError as error:
            return "handshake", reason(error)
    if not server.getpeercert(binary_form=True):
        return "handshake", "the server saw no certificate"
    return None


def reason(error):
    return getattr(error, "verify_message", None) or getattr(error, "reason", None) or str(error)


def main():
    judge = Judge()
    for line in sys.stdin:
        verdict = {"id": None, "ok": False}
        try:
            request = json.loads(line)
            verdict["id"] = request["id"]
            if request.get("at") is not None:
                raise ValueError("OpenSSL judges a handshake at the real time only")
            failure, verdict["partial"] = judge.judge(request)
            verdict["ok"] = failure is None
            if failure:
                verdict["stage"], verdict["reason"] = failure
        except (KeyError, TypeError, ValueError) as error:
            verdict["stage"], verdict["reason"] = "request", repr(error)
        sys.stdout.write(json.dumps(verdict) + "\n")
        sys.stdout.flush()


main()
