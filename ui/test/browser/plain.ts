/**
 * A browser to measure in. The usual driver is told of every message of every socket, which costs more than the page does:
 * this one asks for what it needs, and is told nothing else.
 */

import { spawn, type ChildProcess } from 'node:child_process';
import { createInterface } from 'node:readline';
import { WebSocket } from 'ws';
import { folder } from '../../../clients/ts/test/gateway.js';
import { CHROMIUM, DESKTOP } from './browser.js';

type Answer = Readonly<Record<string, any>>;

/** One page of a browser of its own, by the DevTools protocol. */
export class PlainPage {
  readonly #waiting = new Map<number, { resolve: (answer: Answer) => void; reject: (error: Error) => void }>();
  #session: string | undefined;
  #lastId = 0;

  private constructor(
    readonly browser: ChildProcess,
    readonly socket: WebSocket,
  ) {
    socket.on('message', (data) => {
      const { id, result, error } = JSON.parse(String(data)) as Answer;
      const waiting = this.#waiting.get(id as number);
      this.#waiting.delete(id as number);
      if (error === undefined) waiting?.resolve(result as Answer);
      else waiting?.reject(new Error(JSON.stringify(error)));
    });
    const lost = () => this.#waiting.forEach(({ reject }) => reject(new Error('the browser is gone')));
    socket.on('close', lost).on('error', lost);
  }

  /** Starts a browser with an empty page, in which this runs before anything else does. */
  static async start(inPage: () => void): Promise<PlainPage> {
    const { width, height } = DESKTOP.viewport;
    const needed = ['--headless=new', '--remote-debugging-port=0', '--no-sandbox', '--disable-dev-shm-usage', '--no-first-run'];
    const browser = spawn(CHROMIUM, [...needed, `--user-data-dir=${folder()}`, `--window-size=${width},${height}`, 'about:blank'], {
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    process.on('exit', () => browser.kill('SIGKILL'));
    try {
      return await PlainPage.#attach(browser, inPage);
    } catch (error) {
      browser.kill('SIGKILL');
      throw error;
    }
  }

  static async #attach(browser: ChildProcess, inPage: () => void): Promise<PlainPage> {
    const { width, height } = DESKTOP.viewport;
    const stderr = browser.stderr as NonNullable<ChildProcess['stderr']>;
    const url = await new Promise<string>((resolve, reject) => {
      createInterface(stderr).on('line', (line) => /^DevTools listening on (.*)$/.exec(line)?.[1] && resolve(line.slice('DevTools listening on '.length)));
      browser.once('exit', (code) => reject(new Error(`${CHROMIUM} ended: ${code}`)));
      browser.once('error', reject);
    });
    const socket = new WebSocket(url, { perMessageDeflate: false });
    await new Promise((resolve, reject) => socket.once('open', resolve).once('error', reject));
    const page = new PlainPage(browser, socket);
    const { targetId } = await page.send('Target.createTarget', { url: 'about:blank', newWindow: true, width, height });
    const { sessionId } = await page.send('Target.attachToTarget', { targetId, flatten: true });
    page.#session = sessionId as string;
    await page.send('Page.enable');
    await page.send('Page.addScriptToEvaluateOnNewDocument', { source: `(${inPage})()` });
    return page;
  }

  send(method: string, params: object = {}): Promise<Answer> {
    const id = ++this.#lastId;
    this.socket.send(JSON.stringify({ id, method, params, sessionId: this.#session }));
    return new Promise((resolve, reject) => this.#waiting.set(id, { resolve, reject }));
  }

  /** What a function of the page gives. */
  async evaluate<A, R>(what: (argument: A) => R, argument: A): Promise<R> {
    const expression = `(${what})(${JSON.stringify(argument)})`;
    const { result, exceptionDetails } = await this.send('Runtime.evaluate', { expression, returnByValue: true });
    if (exceptionDetails !== undefined) throw new Error(JSON.stringify(exceptionDetails));
    return result.value as R;
  }

  async close(): Promise<void> {
    const gone = new Promise((resolve) => this.browser.once('exit', resolve));
    this.browser.kill('SIGKILL');
    await gone;
    this.socket.terminate();
  }
}
