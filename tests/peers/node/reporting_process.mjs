// A process that reports what happens to it in lines on one of its outputs, by default JSON. Other lines are kept for
// the failure message only.

import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';

const PATIENCE_MS = 20_000;
const LINES_KEPT = 40;

export class ReportingProcess {
  static #started = [];
  #child;
  #name;
  #events = [];
  #waiting = new Set();
  #lastLines = [];
  #exited;

  // `output` is 'stdout' or 'stderr': the one that carries the lines. `parse` makes an event of a line, or undefined.
  constructor(name, command, args, output, parse = parseObject) {
    const stdio = ['pipe', output === 'stdout' ? 'pipe' : 'ignore', output === 'stderr' ? 'pipe' : 'inherit'];
    this.#name = name;
    this.#child = spawn(command, args, { stdio });
    ReportingProcess.#started.push(this.#child);
    this.#exited = new Promise((resolve) => {
      this.#child.once('error', (error) => resolve(`${error}`));
      this.#child.once('close', (code, signal) => resolve(signal ?? code));
    });
    createInterface({ input: this.#child[output] }).on('line', (line) => this.#take(line, parse));
  }

  // Ends by force whatever still runs, so that nothing that was started here outlives the tests, or keeps them waiting.
  static endAll() {
    for (const child of ReportingProcess.#started) child.kill('SIGKILL');
  }

  // The first event, past or coming, for which `wanted` holds.
  async waitFor(wanted, what) {
    const found = this.#events.find(wanted);
    if (found) return found;
    return new Promise((resolve, reject) => {
      const fail = (why) => {
        clearTimeout(deadline);
        this.#waiting.delete(waiting);
        reject(new Error(`${this.#name}: ${why} before: ${what}\n${this.#lastLines.join('\n')}`));
      };
      const deadline = setTimeout(() => fail('deadline'), PATIENCE_MS);
      const waiting = (event) => {
        if (event === undefined) return fail('exit');
        if (!wanted(event)) return;
        clearTimeout(deadline);
        this.#waiting.delete(waiting);
        resolve(event);
      };
      this.#waiting.add(waiting);
      this.#exited.then(() => waiting(undefined));
    });
  }

  saw(wanted) {
    return this.#events.some(wanted);
  }

  // What has happened so far.
  get events() {
    return [...this.#events];
  }

  signal(name) {
    this.#child.kill(name);
  }

  // Asks the process to end; gives its exit code, or the signal's name if it had to be ended by force.
  async stop() {
    this.signal('SIGTERM');
    return this.end();
  }

  // Waits until the process has ended by itself; gives the same as `stop`.
  async end() {
    const deadline = setTimeout(() => this.#child.kill('SIGKILL'), PATIENCE_MS);
    const how = await this.#exited;
    clearTimeout(deadline);
    return how;
  }

  #take(line, parse) {
    this.#lastLines = [...this.#lastLines, line].slice(-LINES_KEPT);
    const event = parse(line);
    if (event === undefined) return;
    this.#events.push(event);
    for (const waiting of [...this.#waiting]) waiting(event);
  }
}

function parseObject(line) {
  try {
    const value = JSON.parse(line);
    return typeof value === 'object' && value !== null ? value : undefined;
  } catch {
    return undefined;
  }
}
