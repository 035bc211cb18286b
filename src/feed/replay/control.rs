//! The commands of a replay: pause, resume, step, seek, speed, loop, stop.

use std::collections::{BTreeSet, HashMap};

use super::merged_capture::value;
use super::seeker::{Found, Seeker};
use super::{Mode, Replay, ReplayStep};
use crate::feed::line::{Line, Memory};
use crate::feed::sequencer::{Instrument, Origin, Sequencer};
use crate::model::instrument::InstrumentId;
use crate::model::tick::{Channel, Tick};
use crate::protocol::replay::ReplayCommand;
use crate::time::clock::Now;

impl Replay {
    /// Executes a command, and passes the resulting ticks to `out`.
    pub fn obey(
        &mut self,
        command: ReplayCommand,
        now: Now,
        sequencer: &mut Sequencer,
        mut out: impl FnMut(&Tick),
    ) {
        let next_ns = self.merged_capture.next_ns();
        self.changed = true;
        match command {
            ReplayCommand::Pause => self.stand(0, now, sequencer, &mut out),
            ReplayCommand::Step(ticks) => self.stand(ticks, now, sequencer, &mut out),
            ReplayCommand::Resume => self.go_on(now, sequencer, &mut out),
            ReplayCommand::Seek(moment) => {
                let at_ns = moment
                    .ns(self.extent.start_ns)
                    .clamp(self.extent.from_ns, self.extent.to_ns.unwrap_or(u64::MAX));
                self.go(
                    at_ns,
                    matches!(self.mode, Mode::Playing | Mode::Ended | Mode::Seeking { plays: true }),
                );
            }
            ReplayCommand::Speed(speed) => {
                self.schedule.set_speed(speed, next_ns, now);
                if let Some(seeker) = &self.seeker {
                    seeker.rest(speed.is_flat_out());
                }
            }
            ReplayCommand::Loop(on) => self.spec.looped = on,
            ReplayCommand::Stop => self.stop(now, sequencer, out),
        }
    }

    /// Pauses after `ticks` more ticks.
    fn stand(&mut self, ticks: u32, now: Now, sequencer: &mut Sequencer, out: &mut impl FnMut(&Tick)) {
        match self.mode {
            Mode::Playing => {
                self.schedule.stand(self.merged_capture.next_ns(), now);
                self.mode = Mode::Paused;
                self.output.set_steps(ticks);
                self.tell_origin(Origin::Paused, now, sequencer, out);
            }
            Mode::Paused if ticks == 0 => self.output.set_steps(0),
            Mode::Paused => self.output.set_steps(self.output.steps().saturating_add(ticks)),
            Mode::Seeking { .. } => {
                self.mode = Mode::Seeking { plays: false };
                self.output.set_steps(ticks);
            }
            Mode::Ended => {}
        }
    }

    fn go_on(&mut self, now: Now, sequencer: &mut Sequencer, out: &mut impl FnMut(&Tick)) {
        self.output.set_steps(0);
        match self.mode {
            Mode::Playing => {}
            Mode::Paused => {
                self.mode = Mode::Playing;
                self.output.release_all(out);
                self.tell_origin(Origin::Replay, now, sequencer, out);
                self.merged_capture.lines.iter_mut().for_each(|line| line.touch(now.mono_ns));
            }
            Mode::Seeking { .. } => self.mode = Mode::Seeking { plays: true },
            Mode::Ended => self.go(self.extent.from_ns, true),
        }
    }

    /// Marks the streams of its lines as paused, or as playing again.
    fn tell_origin(
        &mut self,
        origin: Origin,
        now: Now,
        sequencer: &mut Sequencer,
        out: &mut impl FnMut(&Tick),
    ) {
        self.set_origin(origin);
        sequencer.set_origin(&self.merged_capture.capture_files.lines(), origin, now.wall_ns, out);
    }

    /// Sets the origin of everything its lines publish from here on.
    pub(super) fn set_origin(&mut self, origin: Origin) {
        self.merged_capture.lines.iter_mut().for_each(|line| line.set_origin(origin));
    }

    /// Starts a seek. Nothing is published before it completes.
    pub(super) fn go(&mut self, at_ns: u64, plays: bool) {
        let Some(seeker) = &self.seeker else { return };
        seeker.go(at_ns);
        self.mode = Mode::Seeking { plays };
        self.output.set_steps(0);
        self.rounds.resume_at_ns = 0;
        self.changed = true;
    }

    /// Completes a seek if its target is reached: publishes the state there.
    pub(super) fn arrive(
        &mut self,
        plays: bool,
        now: Now,
        sequencer: &mut Sequencer,
        mut out: impl FnMut(&Tick),
    ) -> ReplayStep {
        let found = match self.seeker.as_ref().and_then(Seeker::arrived) {
            None => return ReplayStep::Still,
            Some(Ok(found)) => found,
            Some(Err(error)) => {
                self.stand_at_end(now.wall_ns, sequencer, &mut out);
                return ReplayStep::Lost(error);
            }
        };
        self.output.release_all(&mut out);
        self.schedule.place(found.at_ns);
        // The position found is earlier than `from` if `from` is after the last record.
        if found.at_ns <= self.extent.from_ns {
            self.extent.first_tick = Some(found.shadow.merged_capture.ticks);
        }
        let (mode, origin) =
            if plays { (Mode::Playing, Origin::Replay) } else { (Mode::Paused, Origin::Paused) };
        self.set_origin(origin);
        self.take_on(found, origin, now.wall_ns, sequencer, &mut out);
        self.merged_capture.lines.iter_mut().for_each(|line| line.touch(now.mono_ns));
        self.mode = mode;
        self.rounds.began_ns = None;
        self.changed = true;
        ReplayStep::Took
    }

    /// Applies the state at the target of a seek to the lines and the sequencer, and publishes it.
    fn take_on(
        &mut self,
        found: Found,
        origin: Origin,
        rx_ns: u64,
        sequencer: &mut Sequencer,
        out: &mut impl FnMut(&Tick),
    ) {
        let lines = self.merged_capture.capture_files.lines();
        let shadow = found.shadow;
        let before: BTreeSet<InstrumentId> =
            self.merged_capture.lines.iter().flat_map(Line::instruments).collect();
        let memories: Vec<_> = shadow.merged_capture.lines.into_iter().map(Line::into_memory).collect();
        let theirs: BTreeSet<InstrumentId> = memories.iter().flat_map(Memory::instruments).collect();
        // Maps the shadow's instrument ids to ours. Instruments without room are counted when a frame names
        // them.
        let number = |theirs: &InstrumentId| {
            let symbol = shadow.sequencer.table().get(*theirs)?;
            sequencer.intern(symbol).ok().map(|ours| (*theirs, ours))
        };
        let numbers: HashMap<InstrumentId, InstrumentId> = theirs.iter().filter_map(number).collect();
        for (line, mut memory) in self.merged_capture.lines.iter_mut().zip(memories) {
            memory.renumber(|theirs| numbers.get(&theirs).copied());
            line.recall(memory, rx_ns);
        }
        self.merged_capture.merged = shadow.merged_capture.merged;
        // The shadow replay may have reached a truncated end, which it does not report.
        for (truncated, met) in self.merged_capture.truncated.iter_mut().zip(shadow.merged_capture.truncated)
        {
            *truncated |= met;
        }
        self.merged_capture.reads = shadow.merged_capture.reads;
        self.merged_capture.ticks = shadow.merged_capture.ticks;
        let there = theirs.iter().filter_map(|theirs| Some((*numbers.get(theirs)?, Some(*theirs))));
        let mut places: Vec<(InstrumentId, Option<InstrumentId>)> = there.collect();
        let known: BTreeSet<InstrumentId> = places.iter().map(|(ours, _)| *ours).collect();
        places.extend(before.difference(&known).map(|ours| (*ours, None)));
        for (ours, theirs) in places {
            let known = theirs.map_or_else(Instrument::default, |theirs| shadow.sequencer.known(theirs));
            sequencer.adopt(ours, &known, &lines, origin, rx_ns, out);
            for channel in Channel::ALL {
                let value = theirs.and_then(|theirs| value(&shadow.values, theirs, channel));
                sequencer.place(ours, channel, value, rx_ns, out);
            }
        }
    }
}
