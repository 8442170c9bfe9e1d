// Starts @tus/server with its file store, as in its documentation: PORT FOLDER.
import { createServer } from "node:http";
import { FileStore } from "@tus/file-store";
import { Server } from "@tus/server";

const [port, directory] = process.argv.slice(2);
const server = new Server({ path: "/files", datastore: new FileStore({ directory }) });
createServer((request, response) => server.handle(request, response)).listen(Number(port), "127.0.0.1");
