#!/usr/bin/env python3
"""Receives webhooks and accepts only those signed by Landfall.

    LANDFALL_WEBHOOK_SECRET=whsec_... examples/receiver.py [PORT]

The secret is in the response to POST /v1/webhooks. Needs only the standard library; in your own
program, the `standardwebhooks` package does what `verify` does here.
"""

import base64
import hashlib
import hmac
import json
import os
import sys
import threading
import time
from collections import OrderedDict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# A request outside of this tolerance is a replay, or a clock is wrong.
TOLERANCE_SECONDS = 5 * 60
# Events are small; a larger body is not an event.
MAX_BODY_BYTES = 1024 * 1024
# Number of ids to remember. A real program stores them in its database.
REMEMBERED = 10_000


class InvalidSignature(Exception):
    """The request was not signed by Landfall."""


def key_of(secret):
    """Returns the key in a secret: `whsec_` and base64."""
    return base64.b64decode(secret.removeprefix("whsec_"), validate=True)


def verify(key, headers, body, now=None):
    """Verifies a request and returns its id; see the Standard Webhooks specification."""
    message_id = headers.get("webhook-id", "")
    timestamp = headers.get("webhook-timestamp", "")
    if not message_id or not (timestamp.isascii() and timestamp.isdigit()):
        raise InvalidSignature("webhook-id or webhook-timestamp is missing")
    if abs((time.time() if now is None else now) - int(timestamp)) > TOLERANCE_SECONDS:
        raise InvalidSignature("webhook-timestamp is too far from now")
    # Sign the raw bytes: JSON that was parsed and serialized again may differ.
    signed = f"{message_id}.{timestamp}.".encode() + body
    expected = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest())
    # More than one while a secret is being rotated.
    for signature in headers.get("webhook-signature", "").split():
        version, _, value = signature.partition(",")
        if version == "v1" and hmac.compare_digest(value.encode(), expected):
            return message_id
    raise InvalidSignature("no signature in webhook-signature is valid")


class Inbox:
    """Handles each event once, although it may be delivered more than once."""

    def __init__(self):
        self._seen = OrderedDict()
        self._lock = threading.Lock()

    def receive(self, message_id, event):
        with self._lock:
            if message_id in self._seen:
                return
            self.handle(message_id, event)
            # After the work, so that an event whose handling failed is delivered again.
            self._seen[message_id] = True
            if len(self._seen) > REMEMBERED:
                self._seen.popitem(last=False)

    def handle(self, message_id, event):
        """Your code goes here. Be quick, or enqueue the work: the sender waits 30 seconds."""
        print(message_id, event["type"], json.dumps(event["data"]), flush=True)


class Handler(BaseHTTPRequestHandler):
    # Timeout of an idle connection.
    timeout = 30

    def do_POST(self):
        length = self.headers.get("content-length", "")
        if not (length.isascii() and length.isdigit()):
            return self.respond(411)
        if int(length) > MAX_BODY_BYTES:
            return self.respond(413)
        body = self.rfile.read(int(length))
        try:
            message_id = verify(self.server.key, self.headers, body)
        except InvalidSignature as reason:
            self.log_message("rejected: %s", reason)
            return self.respond(401)
        # After an exception here there is no response, and the sender retries.
        self.server.inbox.receive(message_id, json.loads(body))
        # Any 2xx ends the retries.
        return self.respond(204)

    def respond(self, status):
        self.send_response(status)
        self.send_header("connection", "close")
        if status != 204:
            self.send_header("content-length", "0")
        self.end_headers()


def main():
    secret = os.environ.get("LANDFALL_WEBHOOK_SECRET", "")
    if not secret:
        sys.exit("LANDFALL_WEBHOOK_SECRET is not set")
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 9000
    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.key = key_of(secret)
    server.inbox = Inbox()
    print(f"listening on http://127.0.0.1:{server.server_port}", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
