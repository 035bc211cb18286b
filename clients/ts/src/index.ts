/** The client of the tickfan market data gateway. */

export * from './messages.js';
export { Client, connect } from './client.js';
export type { ConnectOptions, LinkEvent } from './client.js';
export type { Accepted, Stream, StreamOptions, SubscribeOptions, Subscription } from './subscription.js';
export { ReplayControl } from './replay.js';
export type { Delivery, LateReason, StateNow } from './delivery.js';
export { RequestError } from './link.js';
export type { SocketConstructor, SocketLike } from './link.js';
export type { Broken } from './ledger.js';
export type { Backoff, Clock, Offset } from './timing.js';
export { compareDecimal, subtractDecimal } from './decimal.js';
