// Sends events with the CloudEvents SDK for JavaScript to the address in the
// first argument, and prints each answer as a line of JSON.
import { CloudEvent, HTTP, Mode, emitterFor } from "cloudevents";

const url = process.argv[2];

async function post({ headers, body }) {
  const answer = await fetch(url, { method: "POST", headers, body });
  console.log(JSON.stringify({ status: answer.status, body: await answer.text() }));
}

const event = (id, more) =>
  new CloudEvent({ id, source: "/plant/3", type: "com.example.reading", time: "2026-01-31T12:00:00.500Z", partitionkey: "key " + id, ...more });

const json = { data: { temperature: 21.5, place: "Straße" } };
const text = { data: "<a b=\"é\"/>", datacontenttype: "text/xml" };
const bytes = { data: new Uint8Array([0, 255, 1, 254]), datacontenttype: "application/octet-stream" };

const binary = emitterFor(post, { binding: HTTP, mode: Mode.BINARY });
const structured = emitterFor(post, { binding: HTTP, mode: Mode.STRUCTURED });

// This SDK does not encode headers, so that theirs are ASCII.
await binary(event("b1", { ...json, subject: "door 7 open", comexamplecount: 5, comexampleyes: true }));
await binary(event("b2", text));
await binary(event("b3", bytes));
await structured(event("s1", { ...json, subject: "door 7 → open", comexamplecount: 5, comexampleyes: true, dataschema: "https://example.com/s.json" }));
await structured(event("s2", text));
await structured(event("s3", bytes));
await post({
  headers: { "content-type": "application/cloudevents-batch+json; charset=UTF-8" },
  body: JSON.stringify([event("l1", json), event("l2", bytes)]),
});
