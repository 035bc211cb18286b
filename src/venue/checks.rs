//! Which of a venue's own checks are made.

/// Checks that are left out where a venue, or whoever recorded it, gets them wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChecksOff {
    /// Checksums of books.
    pub checksum: bool,
    /// Numbers of trades, updates and products: a hole is no gap, and a book goes on behind it.
    pub sequence: bool,
    /// Whether a bid is above the ask: such quotes are told.
    pub crossed: bool,
}

impl ChecksOff {
    /// The words for the checks.
    pub const NAMES: [&str; 3] = ["checksum", "sequence", "crossed"];

    /// Leaves out the check of this name.
    ///
    /// # Errors
    /// There is none of this name; the text says which there are.
    pub fn add(&mut self, name: &str) -> Result<(), String> {
        match name {
            "checksum" => self.checksum = true,
            "sequence" => self.sequence = true,
            "crossed" => self.crossed = true,
            _ => return Err(format!("unknown check {name:?}: one of {}", Self::NAMES.join(", "))),
        }
        Ok(())
    }

    /// Reads a list of names with commas between them.
    ///
    /// # Errors
    /// As [`add`](Self::add).
    pub fn parse(list: &str) -> Result<Self, String> {
        let mut off = Self::default();
        list.split(',').try_for_each(|name| off.add(name))?;
        Ok(off)
    }

    /// The words for what is left out.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        let off = [self.checksum, self.sequence, self.crossed];
        Self::NAMES.into_iter().zip(off).filter_map(|(name, is_off)| is_off.then_some(name))
    }
}
