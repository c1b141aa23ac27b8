// Creates a study, watches it to its end, and downloads its model:
//
//     npm ci
//     node tune.js --coordinator 127.0.0.1:7433 --name from-node --output model.safetensors
//
// Over TLS: --ca ca.crt --cert operator.crt --key operator.key, or --ca and a token in FEDSTEP_TOKEN.

import { existsSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import grpc from '@grpc/grpc-js';
import { Coordinator } from './coordinator.js';
import { ModelFile } from './model_file.js';

const USAGE = `Usage: node tune.js [--coordinator HOST:PORT] [--name STUDY] [--output FILE]
                    [--ca FILE [--cert FILE --key FILE]] [--protos FOLDER]

Creates a study, watches it to its end, and downloads its model.
FEDSTEP_TOKEN holds an operator's token.`;

const text = (fallback) => ({ type: 'string', default: fallback });

// As in a study file, in the names of proto/fedstep/v1/study.proto. What is left out has its default.
const study = (name) => ({
  name,
  task: 'digits',
  space: [
    { name: 'lr', float_range: { low: 0.001, high: 1.0, log: true } },
    { name: 'local_epochs', int_range: { low: 1, high: 3 } },
  ],
  objective: { metric: 'accuracy', direction: 'DIRECTION_MAXIMIZE' },
  tuner: { name: 'random' },
  round: { min_clients: 2, deadline: { seconds: 20 } },
  budget: { trials: 4, rounds_per_trial: 5 },
});

async function main() {
  const { values } = parseArgs({
    options: {
      coordinator: text(process.env.FEDSTEP_COORDINATOR ?? '127.0.0.1:7433'),
      name: text('from-node'),
      output: text('model.safetensors'),
      protos: text(fileURLToPath(new URL('../../proto', import.meta.url))),
      ca: text(process.env.FEDSTEP_TLS_CA),
      cert: text(process.env.FEDSTEP_TLS_CERT),
      key: text(process.env.FEDSTEP_TLS_KEY),
      help: { type: 'boolean', short: 'h' },
    },
  });
  if (values.help) {
    console.log(USAGE);
    return;
  }
  const { name, output, protos, ...tls } = values;
  if (!existsSync(dirname(resolve(output)))) {
    throw new Error(`There is no folder ${dirname(output)} for the model: make it, or give another --output FILE.`);
  }
  const coordinator = new Coordinator(values.coordinator, protos, { ...tls, token: process.env.FEDSTEP_TOKEN });
  try {
    await coordinator.callUntilAnswered('CreateStudy', { spec: study(name) });
    const lost = (error, where) => console.error(`Lost the coordinator (${error.details}); asking again after ${where}.`);
    for await (const event of coordinator.watch(name, { onLost: lost })) {
      console.log(`${event.number}\t${event.kind}\t${event.text}`);
    }
    const answer = await coordinator.callUntilAnswered('GetStudy', { name });
    if (!answer.study.result) throw new Error(`Study ${name} has no model: ${answer.study.message}`);
    const digest = await coordinator.download(name, new ModelFile(output), { onLost: lost });
    if (digest !== answer.study.result.model_sha256.toString('hex')) throw new Error('This is not the study\'s model.');
    console.log(`The model is in ${output}; its SHA-256 is as it should be: ${digest}`);
  } finally {
    coordinator.close();
  }
}

main().catch((error) => {
  const nobody = error.code === grpc.status.UNAVAILABLE;
  const fix = 'is a coordinator there? Start one with `fedstep coordinator`, or give another --coordinator HOST:PORT.';
  console.error(nobody ? `Nobody answers (${error.details}): ${fix}` : (error.details ?? error.message));
  process.exitCode = 1;
});
