// A model on its way into a safetensors file: a length of 8 bytes, a JSON that says which tensors follow, and the
// tensors, which are the payload of the protocol as it is.

import crypto from 'node:crypto';
import fs from 'node:fs';

const TYPES = {
  DATA_TYPE_FLOAT32: 'F32',
  DATA_TYPE_FLOAT64: 'F64',
  DATA_TYPE_FLOAT16: 'F16',
  DATA_TYPE_BFLOAT16: 'BF16',
  DATA_TYPE_INT64: 'I64',
  DATA_TYPE_INT32: 'I32',
  DATA_TYPE_INT16: 'I16',
  DATA_TYPE_INT8: 'I8',
  DATA_TYPE_UINT8: 'U8',
  DATA_TYPE_BOOL: 'BOOL',
};

export class ModelFile {
  constructor(path) {
    this.path = path;
    this.part = `${path}.part`;
    this.file = fs.openSync(this.part, 'w');
    this.hash = crypto.createHash('sha256');
    this.sha256 = null; // the model's name, once the coordinator has said it
    this.size = null;
    this.received = 0;
  }

  get whole() {
    return this.size !== null && this.received === this.size;
  }

  begin({ manifest, sha256, offset }) {
    if (this.sha256 !== null) {
      if (!this.sha256.equals(sha256) || Number(offset) !== this.received) throw new Error('Another part came than asked for.');
      return;
    }
    this.sha256 = sha256;
    this.size = Number(manifest.payload_bytes);
    const table = { __metadata__: { format: 'pt', sha256: sha256.toString('hex') } };
    manifest.tensors.forEach((tensor, i) => {
      const end = i + 1 < manifest.tensors.length ? manifest.tensors[i + 1].offset_bytes : manifest.payload_bytes;
      table[tensor.name] = {
        dtype: TYPES[tensor.data_type],
        shape: tensor.shape.map(Number),
        data_offsets: [Number(tensor.offset_bytes), Number(end)],
      };
    });
    const text = Buffer.from(JSON.stringify(table));
    const padding = Buffer.alloc((8 - (text.length % 8)) % 8, ' ');
    const length = Buffer.alloc(8);
    length.writeBigUInt64LE(BigInt(text.length + padding.length));
    fs.writeSync(this.file, Buffer.concat([length, text, padding]));
  }

  write(chunk) {
    this.hash.update(chunk);
    fs.writeSync(this.file, chunk);
    this.received += chunk.length;
  }

  /** Closes the file; it has its name only where what came is what the digest says. */
  finish() {
    fs.closeSync(this.file);
    const found = this.hash.digest();
    if (!found.equals(this.sha256)) {
      fs.unlinkSync(this.part);
      throw new Error(`What came is not the model ${this.sha256.toString('hex')}: download it again.`);
    }
    fs.renameSync(this.part, this.path);
    return found.toString('hex');
  }
}
