//! What a line makes of the messages of a book: snapshots and changes that follow each other by the venue's rule, checked
//! where the venue says how, and a quote whenever the best bid or offer is another one.

use super::processor::{LineProcessor, RANK_BOOK, Updates};
use crate::feed::book::{Book, Taken};
use crate::model::tick::{Body, Channel, Tick};
use crate::venue::{self, BookMessage, DecodeError, Event, Link};

/// How a change stands to what came before it.
enum Follows {
    /// It is the next one.
    Yes,
    /// The snapshot in hand holds it already.
    Skipped,
    /// Something is missing before it.
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
        // Numbers that follow each other prove it; a checksum will be looked at.
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
                // Those behind it were given up.
                None => !is_older,
            };
            if !reaches && !self.limits.checks_off.sequence {
                // It is older than the oldest change that is kept behind it. A book that is in step goes on without it;
                // one that is not waits for another snapshot.
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

    /// Applies the changes to a snapshot that came before it and that it does not hold. Returns the update id and the
    /// venue's time of the newest one.
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

    /// Keeps the change in hand for a snapshot that is older.
    fn keep(&mut self, at: usize, first: u64, last: u64, previous: Option<u64>) {
        let share = self.limits.splice_bytes_max / self.symbols.len().max(1);
        let window = &mut self.symbols[at].window;
        let others = self.splice_bytes.saturating_sub(window.bytes());
        // Where all of it is taken, each symbol has its share, and those that have more give it up with their next change.
        let bytes_max = self.limits.splice_bytes_max.saturating_sub(others).max(share);
        window.keep((first, last, previous), self.frame, self.limits.splice_messages_max, bytes_max);
        *self.splice_bytes = others + window.bytes();
    }

    /// Whether a change follows what came before it. A break is counted and told; with a snapshot in hand, changes that
    /// it already holds are skipped.
    fn follows(&mut self, at: usize, first: u64, last: u64, previous: Option<u64>) -> Follows {
        let listed = &mut self.symbols[at];
        let Some(before) = listed.update.replace(Updates { last, from_snapshot: false }) else {
            return Follows::Yes;
        };
        // The snapshot holds it, or it came twice: the venue's recipe is to leave it out.
        if last <= before.last && (before.from_snapshot || !self.limits.checks_off.sequence) {
            listed.update = Some(before);
            return Follows::Skipped;
        }
        let unbroken = match previous {
            // The futures' ids are shared with other symbols, so `first` may lie far beyond the message before.
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
        // What is kept has no hole in it.
        *self.splice_bytes = self.splice_bytes.saturating_sub(listed.window.bytes());
        listed.window.clear();
        Follows::No
    }

    /// After a book message: checks the book, and hands out its best bid and offer if they changed.
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
        // What was told before was checked then.
        if quote == listed.top && speaks && is_certain && !listed.broken && !listed.held {
            return taken.into_result();
        }
        let hold = self.is_crossed(&quote) || !is_certain;
        let listed = &mut self.symbols[at];
        // A book is only there again after a snapshot, and only here is it known to be a good one.
        let rebuilt = listed.broken && !hold;
        listed.broken &= hold;
        // What this line told before somebody else spoke has to be told again.
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

    /// Whether the book is what the venue says it is after this message. A checksum that is wrong is counted.
    fn is_proven(&mut self, at: usize, message: &BookMessage<'_, '_>) -> bool {
        let listed = &mut self.symbols[at];
        let Some(book) = &listed.book else { return true };
        let unchecked = self.limits.checks_off.checksum;
        let checksum = message.checksum.filter(|_| !unchecked && book.is_certain_to(Book::CHECKSUM_LEVELS));
        // Where the checksum is not looked at, it disproves nothing either.
        listed.unproven &= !(unchecked && message.checksum.is_some());
        let Some(checksum) = checksum else { return !listed.unproven };
        let mut holds = book.kraken_checksum(listed.places) == checksum;
        if !holds && message.snapshot {
            // Whoever wrote the numbers anew has lost the zeros that the checksum counts.
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
