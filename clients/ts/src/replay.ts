/** What may be asked of a gateway that replays a recording: it holds for everybody who listens to it. */

import type { Micros, Replay, ReplayAction, ReplayRequest } from './messages.js';

/** The slowest and the fastest that a recording is replayed, against how it was; 0 is as fast as it goes. */
const [SPEED_MIN, SPEED_MAX] = [0.01, 1000];

/**
 * The replay of a gateway. Each promise resolves when the gateway has taken the request, and rejects with a `RequestError`
 * if it has not; what came of it is told by `onReplay`.
 */
export class ReplayControl {
  /** Shown with each request, where the gateway asks for one. */
  token: string | undefined;
  readonly #ask: (request: ReplayRequest) => Promise<unknown>;
  #status: Replay | undefined;

  /** For the client. */
  constructor(ask: (request: ReplayRequest) => Promise<unknown>) {
    this.#ask = ask;
  }

  /** What this connection has told last; undefined before, and where there is no connection or nothing is replayed. */
  get status(): Replay | undefined {
    return this.#status;
  }

  /** For the client: it was told this, or the connection that told it is lost. */
  told(status: Replay | undefined): void {
    this.#status = status;
  }

  /** Time stands still. */
  pause(): Promise<void> {
    return this.#do({ do: 'pause' });
  }

  /** Time goes on. */
  resume(): Promise<void> {
    return this.#do({ do: 'resume' });
  }

  /** Goes on from this time of the recording. */
  async seek(to: Micros): Promise<void> {
    if (!Number.isSafeInteger(to) || to < 0) throw new RangeError('`to` is whole microseconds');
    await this.#do({ do: 'seek', to });
  }

  /** How fast: 1 is as it was, 0.01 to 1000; 0 is as fast as it goes. */
  async speed(speed: number): Promise<void> {
    if (speed !== 0 && !(speed >= SPEED_MIN && speed <= SPEED_MAX))
      throw new RangeError('`speed` is 0, or from 0.01 to 1000');
    await this.#do({ do: 'speed', speed });
  }

  /** While it is paused: so many ticks further. */
  async step(ticks = 1): Promise<void> {
    if (!Number.isSafeInteger(ticks) || ticks < 1) throw new RangeError('`ticks` is a whole number from 1');
    await this.#do({ do: 'step', ticks });
  }

  /** Whether it begins anew at its end. */
  loop(on: boolean): Promise<void> {
    return this.#do({ do: 'loop', on });
  }

  /** Ends it for good. */
  stop(): Promise<void> {
    return this.#do({ do: 'stop' });
  }

  async #do(action: ReplayAction): Promise<void> {
    const { token } = this;
    await this.#ask({ op: 'replay', ...action, ...(token === undefined ? {} : { token }) });
  }
}
