// A coordinator, as a program in Node steers it: StudyService from its .proto files, loaded at run time.

import fs from 'node:fs';
import grpc from '@grpc/grpc-js';
import protoLoader from '@grpc/proto-loader';

const CALL_MS = 15_000; // every call has a deadline
const WATCH_MS = 3_600_000; // a watch that comes to its own begins again where it was
const AT_REST = ['COMPLETED', 'STOPPED', 'FAILED', 'INTERRUPTED', 'PAUSED'].map((state) => `STUDY_STATE_${state}`);

const sleep = (ms) => new Promise((done) => setTimeout(done, ms));
const isLost = (error) => error.code === grpc.status.UNAVAILABLE || error.code === grpc.status.DEADLINE_EXCEEDED;

export class Coordinator {
  /**
   * @param {string} address HOST:PORT
   * @param {string} protos the folder `proto` of fedstep
   * @param {{ca?: string, cert?: string, key?: string, token?: string}} tls paths of PEM files, and a token
   */
  constructor(address, protos, { ca, cert, key, token } = {}) {
    const definition = protoLoader.loadSync('fedstep/v1/study.proto', {
      includeDirs: [protos],
      keepCase: true,
      longs: String, // 64 bits are more than a number of JavaScript's holds
      enums: String,
      defaults: true,
      oneofs: true,
    });
    const { StudyService } = grpc.loadPackageDefinition(definition).fedstep.v1;
    const read = (path) => (path ? fs.readFileSync(path) : null);
    let credentials = ca ? grpc.credentials.createSsl(read(ca), read(key), read(cert)) : grpc.credentials.createInsecure();
    if (ca && token) {
      const header = new grpc.Metadata();
      header.set('authorization', `Bearer ${token}`);
      const show = grpc.credentials.createFromMetadataGenerator((_, done) => done(null, header));
      credentials = grpc.credentials.combineChannelCredentials(credentials, show);
    }
    this.client = new StudyService(address, credentials, {
      'grpc.keepalive_time_ms': 20_000,
      'grpc.keepalive_timeout_ms': 10_000,
      'grpc.max_reconnect_backoff_ms': 3_000,
    });
  }

  /** A call with one answer: `await coordinator.call('GetStudy', { name: 's' })`. */
  call(method, request) {
    return new Promise((resolve, reject) => {
      const answered = (error, answer) => (error ? reject(error) : resolve(answer));
      this.client[method](request, { deadline: Date.now() + CALL_MS }, answered);
    });
  }

  /** A call that is made again while nobody answers, up to a minute. Creating a study twice makes one study. */
  async callUntilAnswered(method, request) {
    for (let tries = 0; ; tries++) {
      try {
        return await this.call(method, request);
      } catch (error) {
        if (!isLost(error) || tries === 20) throw error;
        await sleep(Math.min(3_000, 200 * 2 ** tries));
      }
    }
  }

  /**
   * A study's events until it ends or stands still. None is missed and none comes twice, whatever cuts the connection:
   * every call asks for what comes after the last event that was seen.
   */
  async *watch(name, { after = '0', onLost = () => {} } = {}) {
    for (let lost = false; ; ) {
      const stream = this.client.WatchStudy({ name, after_event: after }, { deadline: Date.now() + WATCH_MS });
      try {
        for await (const { event } of stream) {
          lost = false;
          after = event.number;
          yield event;
        }
        const { study } = await this.callUntilAnswered('GetStudy', { name });
        if (AT_REST.includes(study.state)) return;
        await sleep(3_000); // it has not ended and nothing happens to it: ask again later
      } catch (error) {
        if (!isLost(error)) throw error;
        if (!lost) onLost(error, after); // once, however often it is asked again
        lost = true;
        await sleep(500);
      } finally {
        stream.cancel();
      }
    }
  }

  /**
   * A study's model into `file` (a ModelFile). A download that is cut goes on where it was, with the model that its first
   * header named.
   */
  async download(study, file, { onLost = () => {} } = {}) {
    for (let tries = 0; !file.whole; ) {
      const request = { study, sha256: file.sha256 ?? Buffer.alloc(0), offset: String(file.received) };
      const stream = this.client.DownloadModel(request, { deadline: Date.now() + WATCH_MS });
      try {
        for await (const answer of stream) {
          tries = 0;
          if (answer.part === 'header') file.begin(answer.header);
          else file.write(answer.chunk);
        }
      } catch (error) {
        if (!isLost(error) || tries === 20) throw error;
        if (tries++ === 0) onLost(error, file.received);
        await sleep(500);
      } finally {
        stream.cancel();
      }
    }
    return file.finish();
  }

  close() {
    this.client.close();
  }
}
