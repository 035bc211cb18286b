//! Which checks of a venue's messages are made.

/// Checks that are skipped, for venues or recorders that get them wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChecksOff {
    /// Checksums of books.
    pub checksum: bool,
    /// Sequence numbers of trades, updates and products: a hole causes no gap, and the book continues.
    pub sequence: bool,
    /// Bid above ask: such quotes are published.
    pub crossed: bool,
}

impl ChecksOff {
    /// The names of the checks.
    pub const NAMES: [&str; 3] = ["checksum", "sequence", "crossed"];

    /// Disables the check of this name.
    ///
    /// # Errors
    /// The message lists the valid names.
    pub fn add(&mut self, name: &str) -> Result<(), String> {
        match name {
            "checksum" => self.checksum = true,
            "sequence" => self.sequence = true,
            "crossed" => self.crossed = true,
            _ => return Err(format!("unknown check {name:?}: one of {}", Self::NAMES.join(", "))),
        }
        Ok(())
    }

    /// Parses a comma-separated list of names.
    ///
    /// # Errors
    /// As [`add`](Self::add).
    pub fn parse(list: &str) -> Result<Self, String> {
        let mut off = Self::default();
        list.split(',').try_for_each(|name| off.add(name))?;
        Ok(off)
    }

    /// Returns the names of the disabled checks.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        let off = [self.checksum, self.sequence, self.crossed];
        Self::NAMES.into_iter().zip(off).filter_map(|(name, is_off)| is_off.then_some(name))
    }
}
