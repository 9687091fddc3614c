// Asks a service by OpenAI's own client, as any program in JavaScript would, and prints what it was given.
// Standard input: {"baseURL", "apiKey", "model", "image", "broken"}; the last two are data: URLs.
import OpenAI from "openai";
import { text } from "node:stream/consumers";

const given = JSON.parse(await text(process.stdin));
const client = new OpenAI({ baseURL: given.baseURL, apiKey: given.apiKey, maxRetries: 0 });

const asked = (url, more) => ({
  model: given.model,
  messages: [{ role: "user", content: [{ type: "image_url", image_url: { url } }] }],
  temperature: 0,
  ...more,
});

const models = [];
for await (const model of client.models.list()) models.push(model.id);

const whole = await client.chat.completions.create(asked(given.image, { max_tokens: 60 }));
const drawn = await client.chat.completions.create(asked(given.image, { n: 3, temperature: 1.5, seed: 1 }));

const pieces = [];
let usage;
const stream = await client.chat.completions.create(
  asked(given.image, { stream: true, stream_options: { include_usage: true } }),
);
for await (const chunk of stream) {
  pieces.push(chunk.choices[0]?.delta?.content ?? "");
  usage = chunk.usage ?? usage;
}

const refused = [];
for (const wrong of [asked(given.broken), asked(given.image, { model: "other" }), asked(given.image, { n: 0 })]) {
  try {
    await client.chat.completions.create(wrong);
  } catch (error) {
    refused.push([error.constructor.name, error.status, error.code, error.message]);
  }
}

console.log(JSON.stringify({ models, whole, drawn, pieces, usage, refused }));
