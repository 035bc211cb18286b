//! What a line makes of the messages of a book: snapshots and changes that follow each other by the venue's rule, checked
//! where the venue says how, and a quote whenever the best bid or offer is another one.

use super::intake::{Intake, RANK_BOOK, Updates};
use crate::book::{Book, Taken};
use crate::tick::{Body, Channel, Tick};
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

impl<Out: FnMut(&Tick)> Intake<'_, Out> {
    pub(super) fn book(&mut self, message: &BookMessage<'_, '_>) -> Result<(), DecodeError> {
        self.heard(message.symbol)?;
        if message.snapshot { self.snapshot(message) } else { self.change(message) }
    }

    fn change(&mut self, message: &BookMessage<'_, '_>) -> Result<(), DecodeError> {
        let follows = match message.link {
            Link::None => Follows::Yes,
            Link::Updates { first, last, previous } => {
                let follows = self.follows(message.symbol, first, last, previous)?;
                self.keep(message.symbol, first, last, previous)?;
                follows
            }
        };
        if !matches!(follows, Follows::Yes) {
            return Ok(());
        }
        let listed = self.listed(message.symbol)?;
        let Some(book) = listed.book.as_mut() else { return Ok(()) };
        // Numbers that follow each other prove it; a checksum will be looked at.
        listed.unproven &= matches!(message.link, Link::None);
        let taken = book.change(&message.levels);
        self.settle(message, message.ts_us, taken)
    }

    fn snapshot(&mut self, message: &BookMessage<'_, '_>) -> Result<(), DecodeError> {
        let limit = self.limits.book_levels_max;
        let listed = self.listed(message.symbol)?;
        let depth = listed.depth.or(message.depth).unwrap_or(limit).min(limit);
        let mut book = Book::new(depth);
        let mut taken = book.snapshot(&message.levels);
        let mut ts_us = message.ts_us;
        let mut update = None;
        if let Link::Updates { last, .. } = message.link {
            let oldest = listed.window.after(last).next();
            if oldest.is_some_and(|(oldest, _)| !oldest.joins(last)) && !self.limits.checks_off.sequence {
                return self.cannot_join(message.symbol);
            }
            update = Some(Updates { last, from_snapshot: true });
            if let Some(newest) = self.splice(message.symbol, last, &mut book, &mut taken)? {
                update = Some(Updates { last: newest.0, from_snapshot: false });
                ts_us = newest.1.or(ts_us);
            }
        }
        let listed = self.listed(message.symbol)?;
        (listed.book, listed.update, listed.unproven) = (Some(book), update, false);
        let id = listed.id;
        self.claim(id, Channel::Quote, RANK_BOOK);
        self.settle(message, ts_us, taken)
    }

    /// The snapshot is older than the oldest change that is kept behind it. A book that is in step goes on without it;
    /// one that is not waits for another snapshot.
    fn cannot_join(&mut self, symbol: &str) -> Result<(), DecodeError> {
        if self.listed(symbol)?.book.is_none() {
            self.stats.refused.snapshots += 1;
        }
        Ok(())
    }

    /// Applies the changes to a snapshot that came before it and that it does not hold. Returns the update id and the
    /// venue's time of the newest one.
    fn splice(
        &mut self,
        symbol: &str,
        snapshot: u64,
        book: &mut Book,
        taken: &mut Taken,
    ) -> Result<Option<(u64, Option<u64>)>, DecodeError> {
        let (wire, scratch) = (self.wire, &mut *self.splice_scratch);
        let Some(listed) = self.symbols.get(symbol) else { return Ok(None) };
        let mut newest = None;
        for (kept, frame) in listed.window.after(snapshot) {
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
    fn keep(
        &mut self,
        symbol: &str,
        first: u64,
        last: u64,
        previous: Option<u64>,
    ) -> Result<(), DecodeError> {
        let frame = self.frame;
        let (messages_max, bytes_max) = (self.limits.splice_messages_max, self.limits.splice_bytes_max);
        let all = *self.splice_bytes;
        let window = &mut self.listed(symbol)?.window;
        let others = all - window.bytes().min(all);
        window.keep((first, last, previous), frame, messages_max, bytes_max.saturating_sub(others));
        let own = window.bytes();
        *self.splice_bytes = others + own;
        Ok(())
    }

    /// Whether a change follows what came before it. A break is counted and told; with a snapshot in hand, changes that
    /// it already holds are skipped.
    fn follows(
        &mut self,
        symbol: &str,
        first: u64,
        last: u64,
        previous: Option<u64>,
    ) -> Result<Follows, DecodeError> {
        let unchecked = self.limits.checks_off.sequence;
        let listed = self.listed(symbol)?;
        let Some(before) = listed.update.replace(Updates { last, from_snapshot: false }) else {
            return Ok(Follows::Yes);
        };
        if before.from_snapshot && last <= before.last {
            listed.update = Some(before);
            return Ok(Follows::Skipped);
        }
        let unbroken = match previous {
            // The futures' ids are shared with other symbols, so `first` may lie far beyond the message before.
            Some(previous) if before.from_snapshot => previous <= before.last,
            None if before.from_snapshot => first <= before.last.saturating_add(1),
            Some(previous) => previous == before.last,
            None => first == before.last.saturating_add(1),
        };
        if unbroken || unchecked {
            return Ok(Follows::Yes);
        }
        self.stats.sequence_breaks += 1;
        self.break_quotes(symbol)?;
        let listed = self.listed(symbol)?;
        listed.update = Some(Updates { last, from_snapshot: false });
        // What is kept has no hole in it.
        let bytes = listed.window.bytes();
        listed.window.clear();
        *self.splice_bytes = self.splice_bytes.saturating_sub(bytes);
        Ok(Follows::No)
    }

    /// After a book message: checks the book, and hands out its best bid and offer if they changed.
    fn settle(
        &mut self,
        message: &BookMessage<'_, '_>,
        ts_us: Option<u64>,
        taken: Taken,
    ) -> Result<(), DecodeError> {
        let symbol = message.symbol;
        self.stats.refused.levels += taken.levels_refused;
        if taken.is_lost || !self.is_proven(message)? {
            self.break_quotes(symbol)?;
            return taken.into_result();
        }
        let listed = self.listed(symbol)?;
        let id = listed.id;
        let Some(book) = &listed.book else { return taken.into_result() };
        let (quote, is_certain) = (book.quote(), book.is_certain());
        let hold = self.is_crossed(&quote) || !is_certain;
        let listed = self.listed(symbol)?;
        // A book is only there again after a snapshot, and only here is it known to be a good one.
        let rebuilt = listed.broken && !hold;
        listed.broken &= hold;
        let (was_held, same) = (listed.held, quote == listed.top && !rebuilt);
        if hold || was_held || rebuilt {
            if !self.claim(id, Channel::Quote, RANK_BOOK) {
                return taken.into_result();
            }
            self.listed(symbol)?.held = hold;
            self.market.set_broken(id, hold, self.rx_ns, &mut self.out);
        }
        if hold || same {
            return taken.into_result();
        }
        self.listed(symbol)?.top = quote;
        if self.claim(id, Channel::Quote, RANK_BOOK) {
            self.publish(id, Channel::Quote, ts_us, Body::Quote(quote));
        }
        taken.into_result()
    }

    /// Whether the book is what the venue says it is after this message. A checksum that is wrong is counted.
    fn is_proven(&mut self, message: &BookMessage<'_, '_>) -> Result<bool, DecodeError> {
        let unchecked = self.limits.checks_off.checksum;
        let listed = self.listed(message.symbol)?;
        let Some(book) = &listed.book else { return Ok(true) };
        let checksum = message.checksum.filter(|_| !unchecked && book.is_certain_to(Book::CHECKSUM_LEVELS));
        let Some(checksum) = checksum else { return Ok(!listed.unproven) };
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
        Ok(holds)
    }
}
