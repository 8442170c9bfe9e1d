// Uploads with tus-js-client, the client browsers use: node tus.mjs ENDPOINT WAY FILE. Prints the upload's URL.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { PassThrough } from "node:stream";

const require = createRequire(`${process.env.LANDFALL_TEST_NODE_MODULES}/`);
const { Upload } = require("tus-js-client");

const [endpoint, way, file] = process.argv.slice(2);
const bytes = readFileSync(file);
const chunkSize = 300_000;
const NAME = "Straße 😀.bin";

// The draft has no metadata; the name is in Content-Disposition (RFC 6266).
const draft = {
  protocol: "ietf-draft-05",
  headers: { "Content-Disposition": `attachment; filename*=UTF-8''${encodeURIComponent(NAME)}` },
};

const ways = {
  whole: { body: bytes },
  chunks: { body: bytes, chunkSize },
  parallel: { body: bytes, parallelUploads: 4 },
  creation: { body: bytes, chunkSize, uploadDataDuringCreation: true },
  // The client cannot know the length of a stream without a path.
  deferred: { body: new PassThrough().end(bytes), chunkSize, uploadLengthDeferred: true },
  override: { body: bytes, chunkSize, overridePatchMethod: true },
  resumed: { body: bytes, chunkSize },
  draft: { body: bytes, ...draft },
  "draft-chunks": { body: bytes, chunkSize, ...draft },
  "draft-resumed": { body: bytes, chunkSize, ...draft },
};
const { body, ...options } = ways[way];

function upload(more) {
  return new Promise((resolve, reject) => {
    const running = new Upload(body, {
      endpoint,
      retryDelays: [100, 200, 400],
      metadata: { filename: NAME, filetype: "application/octet-stream" },
      ...options,
      ...more,
      onSuccess: () => resolve(running.url),
      onError: reject,
      onChunkComplete: (_, sent) => more.onChunk?.(running, sent, resolve),
    });
    running.start();
  });
}

let url;
if (way.endsWith("resumed")) {
  const stopAt = (running, sent, resolve) => {
    if (sent >= chunkSize * 2) running.abort().then(() => resolve(running.url));
  };
  const begun = await upload({ onChunk: stopAt });
  url = await upload({ uploadUrl: begun });
} else {
  url = await upload({});
}
console.log(url);
