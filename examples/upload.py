#!/usr/bin/env python3
"""Uploads a large file in parts, four at a time, and waits until it is stored: examples/upload.py FILE

    LANDFALL_URL     the server (default: http://127.0.0.1:8080)
    LANDFALL_TOKEN   the token, if the server requires one

After an interruption, run the command again with --resume ID, the id that it prints first: only the missing parts are sent.
It needs Python 3.9 and nothing else.
"""

import argparse
import base64
import concurrent.futures
import hashlib
import json
import os
import sys
import time
import urllib.error
import urllib.request
import uuid

SERVER = os.environ.get("LANDFALL_URL", "http://127.0.0.1:8080").rstrip("/")
TOKEN = os.environ.get("LANDFALL_TOKEN")
ATTEMPTS = 8


def call(method, path, body=None, headers=None):
    """Sends a request, retries it while the server is unavailable, and returns the JSON of the response."""
    headers = dict(headers or {})
    if TOKEN:
        headers["Authorization"] = f"Bearer {TOKEN}"
    for attempt in range(ATTEMPTS):
        request = urllib.request.Request(SERVER + path, body, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=120) as response:
                return json.load(response)
        except urllib.error.HTTPError as error:
            problem = json.load(error)
            # `in_flight`: the server is still processing an earlier attempt of the same request.
            is_temporary = error.code >= 500 or error.code == 429 or problem["code"] == "in_flight"
            if not is_temporary or attempt == ATTEMPTS - 1:
                sys.exit(f"{problem['code']}: {problem['detail']}")
        except OSError as error:
            if attempt == ATTEMPTS - 1:
                sys.exit(f"{SERVER} does not respond: {error}")
        time.sleep(min(0.2 * 2**attempt, 10))


def create_session(path):
    upload = {"original_filename": os.path.basename(path), "total_size_bytes": os.path.getsize(path)}
    # With the key, a request whose response is lost does not create a second upload.
    headers = {"Content-Type": "application/json", "Idempotency-Key": str(uuid.uuid4())}
    return call("POST", "/v1/uploads", json.dumps(upload).encode(), headers)


def received(session):
    """Returns the numbers in `received_parts`, such as "1-50,52"."""
    numbers = set()
    for run in filter(None, session["received_parts"].split(",")):
        first, _, last = run.partition("-")
        numbers.update(range(int(first), int(last or first) + 1))
    return numbers


def send_part(path, session, number):
    size = session["chunk_size_bytes"]
    with open(path, "rb") as file:
        file.seek((number - 1) * size)
        part = file.read(size)
    digest = base64.b64encode(hashlib.sha256(part).digest()).decode()
    headers = {
        "Content-Type": "application/octet-stream",
        "Content-Digest": f"sha-256=:{digest}:",
    }
    call("PUT", f"/v1/uploads/{session['id']}/parts/{number}", part, headers)


def main():
    arguments = argparse.ArgumentParser(description=__doc__.split(":")[0])
    arguments.add_argument("file")
    arguments.add_argument("--resume", metavar="ID", help="resume this upload")
    given = arguments.parse_args()
    session = call("GET", f"/v1/uploads/{given.resume}") if given.resume else create_session(given.file)
    if session["total_size_bytes"] != os.path.getsize(given.file):
        sys.exit(f"the upload {session['id']} is of a file of another size")
    print("upload:   ", session["id"], flush=True)

    missing = sorted(set(range(1, session["total_parts"] + 1)) - received(session))
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        sending = [pool.submit(send_part, given.file, session, number) for number in missing]
        for done in concurrent.futures.as_completed(sending):
            if done.exception():
                pool.shutdown(cancel_futures=True)
                raise done.exception()
    print("parts:    ", f"{len(missing)} of {session['total_parts']} sent")

    file = call("POST", f"/v1/uploads/{session['id']}/complete")
    while file["status"] not in ("stored", "failed", "deleted"):
        file = call("GET", f"/v1/files/{file['id']}?wait=60")
    if file["status"] != "stored":
        sys.exit(f"{file['status']}: {file['error']}")
    own = hashlib.sha256()
    with open(given.file, "rb") as content:
        while block := content.read(1 << 20):
            own.update(block)
    if own.hexdigest() != file["sha256"]:
        sys.exit("the stored file has different bytes: the local file was changed during the upload")
    print("stored:   ", file["url"])


if __name__ == "__main__":
    main()
