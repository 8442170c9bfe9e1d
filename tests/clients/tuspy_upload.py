"""Uploads with tuspy: python tuspy_upload.py ENDPOINT WAY FILE. Prints the upload's URL."""

import os
import sys
import tempfile

from tusclient import client
from tusclient.storage import filestorage

endpoint, way, path = sys.argv[1:]
CHUNK = 300_000

tus = client.TusClient(endpoint)
name = {"filename": "Straße 😀.bin", "filetype": "application/octet-stream"}


def uploader(**options):
    return tus.uploader(path, metadata=name, retries=3, retry_delay=1, **options)


if way == "whole":
    upload = uploader()
    upload.upload()
elif way == "chunks":
    upload = uploader(chunk_size=CHUNK)
    upload.upload()
elif way == "checksums":
    upload = uploader(chunk_size=CHUNK, upload_checksum=True)
    upload.upload()
elif way == "resumed":
    # By the URL from the uploader.
    first = uploader(chunk_size=CHUNK)
    first.upload(stop_at=2 * CHUNK)
    upload = uploader(chunk_size=CHUNK, url=first.url)
    assert upload.get_offset() == 2 * CHUNK, upload.get_offset()
    upload.upload()
elif way == "remembered":
    # By the client's stored fingerprint, as after a restart.
    with tempfile.TemporaryDirectory() as folder:
        kept = os.path.join(folder, "kept")
        store = {"store_url": True, "chunk_size": CHUNK}
        first = uploader(url_storage=filestorage.FileStorage(kept), **store)
        first.upload(stop_at=CHUNK)
        upload = uploader(url_storage=filestorage.FileStorage(kept), **store)
        assert upload.url == first.url and upload.offset == CHUNK, (upload.url, upload.offset)
        upload.upload()
else:
    sys.exit(f"no such way: {way}")
print(upload.url)
