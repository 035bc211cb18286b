/** Controls the replay of a gateway. Commands affect all of its clients. */

import type { Micros, Replay, ReplayAction, ReplayRequest } from './messages.js';

/** Range of the speed, relative to the recording; 0 is as fast as possible. */
const [SPEED_MIN, SPEED_MAX] = [0.01, 1000];

/**
 * The replay of a gateway. Each promise resolves when the gateway has accepted the command, and rejects with a
 * `RequestError` otherwise; the effect is reported by `onReplay`.
 */
export class ReplayControl {
  /** Sent with each command, if the gateway requires a control token. */
  token: string | undefined;
  readonly #ask: (request: ReplayRequest) => Promise<unknown>;
  #status: Replay | undefined;

  /** Internal. */
  constructor(ask: (request: ReplayRequest) => Promise<unknown>) {
    this.#ask = ask;
  }

  /** The last status on this connection; undefined before, without a connection, or without a replay. */
  get status(): Replay | undefined {
    return this.#status;
  }

  /** Internal: sets the status, or clears it when the connection is lost. */
  told(status: Replay | undefined): void {
    this.#status = status;
  }

  /** Pauses the replay. */
  pause(): Promise<void> {
    return this.#do({ do: 'pause' });
  }

  /** Resumes the replay. */
  resume(): Promise<void> {
    return this.#do({ do: 'resume' });
  }

  /** Moves to this time of the recording. */
  async seek(to: Micros): Promise<void> {
    if (!Number.isSafeInteger(to) || to < 0) throw new RangeError('`to` is whole microseconds');
    await this.#do({ do: 'seek', to });
  }

  /** Sets the speed: 1 is as recorded, 0.01 to 1000; 0 is as fast as possible. */
  async speed(speed: number): Promise<void> {
    if (speed !== 0 && !(speed >= SPEED_MIN && speed <= SPEED_MAX))
      throw new RangeError('`speed` is 0, or from 0.01 to 1000');
    await this.#do({ do: 'speed', speed });
  }

  /** Publishes this number of ticks while paused. */
  async step(ticks = 1): Promise<void> {
    if (!Number.isSafeInteger(ticks) || ticks < 1) throw new RangeError('`ticks` is a whole number from 1');
    await this.#do({ do: 'step', ticks });
  }

  /** Sets whether the replay restarts at its end. */
  loop(on: boolean): Promise<void> {
    return this.#do({ do: 'loop', on });
  }

  /** Ends the replay permanently. */
  stop(): Promise<void> {
    return this.#do({ do: 'stop' });
  }

  async #do(action: ReplayAction): Promise<void> {
    const { token } = this;
    await this.#ask({ op: 'replay', ...action, ...(token === undefined ? {} : { token }) });
  }
}
