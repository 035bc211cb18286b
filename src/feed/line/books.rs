//! Book messages of a line: applies snapshots and changes, checks their continuity by the venue's rule and
//! the venue's checksum where it has one, and publishes a quote when the best bid or offer changes.

use super::processor::{LineProcessor, RANK_BOOK, Updates};
use crate::feed::book::{Book, Taken};
use crate::model::tick::{Body, Channel, Tick};
use crate::venue::{self, BookMessage, DecodeError, Event, Link};

/// How a change relates to the update before it.
enum Follows {
    /// It is the next one.
    Yes,
    /// The current snapshot already includes it.
    Skipped,
    /// Updates are missing before it.
    No,
}

impl<Out: FnMut(&Tick)> LineProcessor<'_, Out> {
    pub(super) fn book(&mut self, message: &BookMessage<'_, '_>) -> Result<(), DecodeError> {
        let at = self.heard(message.symbol)?;
        if message.snapshot { self.snapshot(at, message) } else { self.change(at, message) }
    }

    fn change(&mut self, at: usize, message: &BookMessage<'_, '_>) -> Result<(), DecodeError> {
        if let Link::Updates { first, last, previous } = message.link {
            let follows = self.follows(at, first, last, previous);
            self.keep(at, first, last, previous);
            if !matches!(follows, Follows::Yes) {
                return Ok(());
            }
        }
        let listed = &mut self.symbols[at];
        let Some(book) = listed.book.as_mut() else { return Ok(()) };
        // Consecutive update ids prove the book; otherwise a checksum has to.
        listed.unproven &= matches!(message.link, Link::None);
        let taken = book.change(&message.levels);
        self.settle(at, message, message.ts_us, taken)
    }

    fn snapshot(&mut self, at: usize, message: &BookMessage<'_, '_>) -> Result<(), DecodeError> {
        let limit = self.limits.book_levels_max;
        let listed = &self.symbols[at];
        let depth = listed.depth.or(message.depth).unwrap_or(limit).min(limit);
        let mut book = Book::new(depth);
        let mut taken = book.snapshot(&message.levels);
        let mut ts_us = message.ts_us;
        let mut update = None;
        if let Link::Updates { last, .. } = message.link {
            let is_older = listed.update.is_some_and(|update| update.last > last);
            let reaches = match listed.window.after(last).next() {
                Some((oldest, _)) => oldest.joins(last),
                // The kept changes after the snapshot were evicted.
                None => !is_older,
            };
            if !reaches && !self.limits.checks_off.sequence {
                // Changes between the snapshot and the oldest kept change are missing. A synchronised book
                // continues without the snapshot; otherwise the line waits for another one.
                self.stats.refused.snapshots += u64::from(listed.book.is_none());
                return Ok(());
            }
            update = Some(Updates { last, from_snapshot: true });
            if let Some(newest) = self.splice(at, message.symbol, last, &mut book, &mut taken)? {
                update = Some(Updates { last: newest.0, from_snapshot: false });
                ts_us = newest.1.or(ts_us);
            }
        }
        let listed = &mut self.symbols[at];
        (listed.book, listed.update, listed.unproven) = (Some(book), update, false);
        self.claim(at, Channel::Quote, RANK_BOOK);
        self.settle(at, message, ts_us, taken)
    }

    /// Applies the changes that were received before the snapshot but are newer than it. Returns the update
    /// id and the venue's time, in microseconds, of the newest one.
    fn splice(
        &mut self,
        at: usize,
        symbol: &str,
        snapshot: u64,
        book: &mut Book,
        taken: &mut Taken,
    ) -> Result<Option<(u64, Option<u64>)>, DecodeError> {
        let (wire, scratch) = (self.wire, &mut *self.splice_scratch);
        let mut newest = None;
        for (kept, frame) in self.symbols[at].window.after(snapshot) {
            venue::decode(wire, scratch, frame, &mut |event| {
                if let Event::Book(change) = event
                    && !change.snapshot
                    && change.symbol == symbol
                    && matches!(change.link, Link::Updates { last, .. } if last == kept.last)
                {
                    taken.add(book.change(&change.levels));
                    newest = Some((kept.last, change.ts_us));
                }
                Ok(())
            })?;
        }
        Ok(newest)
    }

    /// Keeps the current change, for a later snapshot that does not include it.
    fn keep(&mut self, at: usize, first: u64, last: u64, previous: Option<u64>) {
        let share = self.limits.splice_bytes_max / self.symbols.len().max(1);
        let window = &mut self.symbols[at].window;
        let others = self.splice_bytes.saturating_sub(window.bytes());
        // When the budget is used up, each symbol has an equal share; symbols above it evict changes when the
        // next one is kept.
        let bytes_max = self.limits.splice_bytes_max.saturating_sub(others).max(share);
        window.keep((first, last, previous), self.frame, self.limits.splice_messages_max, bytes_max);
        *self.splice_bytes = others + window.bytes();
    }

    /// Determines whether a change follows the one before. Counts a break and publishes a gap; after a
    /// snapshot, changes that it already includes are skipped.
    fn follows(&mut self, at: usize, first: u64, last: u64, previous: Option<u64>) -> Follows {
        let listed = &mut self.symbols[at];
        let Some(before) = listed.update.replace(Updates { last, from_snapshot: false }) else {
            return Follows::Yes;
        };
        // Included in the snapshot or a duplicate: the venue's recipe is to skip it.
        if last <= before.last && (before.from_snapshot || !self.limits.checks_off.sequence) {
            listed.update = Some(before);
            return Follows::Skipped;
        }
        let unbroken = match previous {
            // Update ids of futures are shared with other symbols, so `first` may lie far beyond the previous
            // message.
            Some(previous) if before.from_snapshot => previous <= before.last,
            None if before.from_snapshot => first <= before.last.saturating_add(1),
            Some(previous) => previous == before.last,
            None => first == before.last.saturating_add(1),
        };
        if unbroken || self.limits.checks_off.sequence {
            return Follows::Yes;
        }
        self.stats.sequence_breaks += 1;
        self.break_quotes(at);
        let listed = &mut self.symbols[at];
        listed.update = Some(Updates { last, from_snapshot: false });
        // Kept changes must be consecutive.
        *self.splice_bytes = self.splice_bytes.saturating_sub(listed.window.bytes());
        listed.window.clear();
        Follows::No
    }

    /// Checks the book after a book message, and publishes its best bid and offer if they changed.
    fn settle(
        &mut self,
        at: usize,
        message: &BookMessage<'_, '_>,
        ts_us: Option<u64>,
        taken: Taken,
    ) -> Result<(), DecodeError> {
        self.stats.refused.levels += taken.levels_refused;
        if taken.is_lost || !self.is_proven(at, message) {
            self.break_quotes(at);
            return taken.into_result();
        }
        let Some(book) = &self.symbols[at].book else { return taken.into_result() };
        let (quote, is_certain) = (book.quote(), book.is_certain());
        let listed = &self.symbols[at];
        let speaks = self.sequencer.rank(listed.id, Channel::Quote, self.id) == Some(RANK_BOOK);
        // Nothing has changed, and the quote was checked when it was published.
        if quote == listed.top && speaks && is_certain && !listed.broken && !listed.held {
            return taken.into_result();
        }
        let hold = self.is_crossed(&quote) || !is_certain;
        let listed = &mut self.symbols[at];
        // A broken book exists again only after a snapshot, and only this check shows that it is good.
        let rebuilt = listed.broken && !hold;
        listed.broken &= hold;
        // If another source has published quotes since, an equal quote of this line must be published again.
        let same = quote == listed.top && !rebuilt && speaks;
        if hold || listed.held || rebuilt {
            if !self.claim(at, Channel::Quote, RANK_BOOK) {
                return taken.into_result();
            }
            self.hold(at, hold);
        }
        if hold || same {
            return taken.into_result();
        }
        if self.claim(at, Channel::Quote, RANK_BOOK) {
            self.symbols[at].top = quote;
            self.publish(at, Channel::Quote, ts_us, Body::Quote(quote));
        }
        taken.into_result()
    }

    /// Checks the book against the checksum of this message, if any. Counts good and bad checksums.
    fn is_proven(&mut self, at: usize, message: &BookMessage<'_, '_>) -> bool {
        let listed = &mut self.symbols[at];
        let Some(book) = &listed.book else { return true };
        let unchecked = self.limits.checks_off.checksum;
        let checksum = message.checksum.filter(|_| !unchecked && book.is_certain_to(Book::CHECKSUM_LEVELS));
        // If the checksum is not checked, the book does not wait for one.
        listed.unproven &= !(unchecked && message.checksum.is_some());
        let Some(checksum) = checksum else { return !listed.unproven };
        let mut holds = book.kraken_checksum(listed.places) == checksum;
        if !holds && message.snapshot {
            // A program that re-encodes numbers as floats drops trailing zeros, which the checksum covers.
            listed.places = book.find_places(checksum);
            holds = listed.places.is_some();
        }
        listed.unproven &= !holds;
        if holds {
            self.stats.checksums_good += 1;
        } else {
            self.stats.checksums_bad += 1;
        }
        holds
    }
}
