// Prints the Markdown table of scripts/bench-peers from its results: one line of JSON per run.
import { readFileSync } from "node:fs";

const lines = readFileSync(process.argv[2], "utf8").trim().split("\n");
const results = lines.map((line) => JSON.parse(line));
const rows = [...new Set(results.filter(({ column }) => column !== "small").map(({ row }) => row))];

const figure = (value, digits = 0) => (value == null ? "" : value.toFixed(digits));
const mebibytes = (bytes) => (bytes == null ? "" : figure(bytes / 2 ** 20));

const line = (cells) => console.log(`| ${cells.join(" | ")} |`);
line(["server", "one, MB/s", "eight, MB/s", "small/s", "CPU s/GiB, one", "eight", "MiB above idle, one", "eight", "small"]);
line(["---", "---", "---", "---", "---", "---", "---", "---", "---"]);
for (const row of rows) {
    const of = (column) => results.find((result) => result.row === row && result.column === column)?.figures;
    const [one, eight, small] = [of("one"), of("eight"), of("small")];
    line([
        row,
        figure(one.acknowledged.megabytes_per_second),
        figure(eight.acknowledged.megabytes_per_second),
        figure(small?.acknowledged.uploads_per_second),
        figure(one.cpu_seconds_per_gib, 2),
        figure(eight.cpu_seconds_per_gib, 2),
        mebibytes(one.resident_above_bytes),
        mebibytes(eight.resident_above_bytes),
        mebibytes(small?.resident_above_bytes),
    ]);
    // Landfall has synced what it acknowledges; for the others the sync is measured separately.
    const [after, time] = one.synced ? ["synced after", "synced"] : ["until stored", "stored"];
    line([
        `${row}, ${after}`,
        figure(one[time].megabytes_per_second),
        figure(eight[time].megabytes_per_second),
        figure(small?.[time].uploads_per_second),
        "", "", "", "", "",
    ]);
}
