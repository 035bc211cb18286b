//! Parses frames into reused buffers, and reads fields of the result.

use simd_json::prelude::*;
use simd_json::tape::Value;
use simd_json::{Buffers, INPUT_PADDING, Tape};

use super::{BookSide, DecodeError};
use crate::model::tick::{Decimal, DecimalError, TradeId};

/// A parsed JSON value of a frame.
pub(super) type Json<'t, 'i> = Value<'t, 'i>;

/// Buffers reused from frame to frame, so that decoding allocates nothing.
pub struct Scratch {
    /// The frame, followed by the padding that the parser may read.
    input: Vec<u8>,
    buffers: Buffers,
    tape: Tape<'static>,
}

impl Default for Scratch {
    fn default() -> Self {
        Self { input: Vec::new(), buffers: Buffers::default(), tape: Tape::null() }
    }
}

impl Scratch {
    /// Parses `frame` and passes the value to `read`.
    pub(super) fn parse(
        &mut self,
        frame: &[u8],
        read: impl FnOnce(Json<'_, '_>) -> Result<(), DecodeError>,
    ) -> Result<(), DecodeError> {
        self.input.clear();
        self.input.extend_from_slice(frame);
        self.parse_input(read)
    }

    /// As [`parse`](Self::parse), with each number converted to text first. A parser that produces floats
    /// would lose digits (Kraken's checksum covers the trailing zeros of `0.10000000`).
    pub(super) fn parse_numbers_as_text(
        &mut self,
        frame: &[u8],
        read: impl FnOnce(Json<'_, '_>) -> Result<(), DecodeError>,
    ) -> Result<(), DecodeError> {
        self.input.clear();
        quote_numbers(frame, &mut self.input);
        self.parse_input(read)
    }

    fn parse_input(
        &mut self,
        read: impl FnOnce(Json<'_, '_>) -> Result<(), DecodeError>,
    ) -> Result<(), DecodeError> {
        let len = self.input.len();
        self.input.resize(len + INPUT_PADDING, 0);
        let mut tape = std::mem::replace(&mut self.tape, Tape(Vec::new())).reset();
        let parsed = simd_json::fill_tape_padded(&mut self.input, len, &mut self.buffers, &mut tape);
        let result = match parsed {
            Ok(()) => read(tape.as_value()),
            Err(error) => Err(DecodeError::Json(error.to_string())),
        };
        self.tape = tape.reset();
        result
    }
}

/// Copies `frame` to `out` with quotes around every number outside of strings.
fn quote_numbers(frame: &[u8], out: &mut Vec<u8>) {
    let mut rest = frame;
    while let Some(&byte) = rest.first() {
        let taken = match byte {
            b'"' => string_len(rest),
            b'-' | b'0'..=b'9' => {
                let number = |b: &u8| !matches!(b, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E');
                let len = rest.iter().position(number).unwrap_or(rest.len());
                out.push(b'"');
                out.extend_from_slice(&rest[..len]);
                out.push(b'"');
                rest = &rest[len..];
                continue;
            }
            _ => 1,
        };
        out.extend_from_slice(&rest[..taken]);
        rest = &rest[taken..];
    }
}

/// Returns the length of the string at the start of `text`, quotes included; the whole length if it is not
/// terminated.
fn string_len(text: &[u8]) -> usize {
    let mut at = 1;
    while let Some(found) = memchr::memchr2(b'"', b'\\', text.get(at..).unwrap_or_default()) {
        at += found;
        if text[at] == b'"' {
            return at + 1;
        }
        at += 2;
    }
    text.len()
}

/// Returns a required text field.
pub(super) fn text<'t>(message: Json<'t, 't>, field: &'static str) -> Result<&'t str, DecodeError> {
    message.get(field).and_then(as_text).ok_or(DecodeError::Field(field))
}

/// Returns the levels of one side of a book; the list may be empty, but not missing.
pub(super) fn list<'t>(message: Json<'t, 't>, field: &'static str) -> Result<Json<'t, 't>, DecodeError> {
    message.get(field).ok_or(DecodeError::Field(field))
}

/// Returns a required whole number, written as number or text.
pub(super) fn number(message: Json<'_, '_>, field: &'static str) -> Result<u64, DecodeError> {
    optional_number(message, field).ok_or(DecodeError::Field(field))
}

/// Returns a text with the lifetime of the frame.
pub(super) fn as_text<'t>(value: Json<'t, 't>) -> Option<&'t str> {
    value.into_string()
}

/// Returns a whole number, written as number or text; `None` if it is missing or of another type.
pub(super) fn optional_number(message: Json<'_, '_>, field: &str) -> Option<u64> {
    let value = message.get(field)?;
    value.as_u64().or_else(|| value.into_string()?.parse().ok())
}

/// Returns a required price or size, which the venue writes as text.
pub(super) fn decimal(message: Json<'_, '_>, field: &'static str) -> Result<Decimal, DecodeError> {
    message.get(field).ok_or(DecodeError::Field(field)).and_then(|value| as_decimal(value, field))
}

/// Returns a price or size that may be missing or `null`.
pub(super) fn optional_decimal(
    message: Json<'_, '_>,
    field: &'static str,
) -> Result<Option<Decimal>, DecodeError> {
    match message.get(field) {
        Some(value) if value.is_null() => Ok(None),
        Some(value) => as_decimal(value, field).map(Some),
        None => Ok(None),
    }
}

/// Returns a price or size that may be `null`, but not missing.
pub(super) fn nullable_decimal(
    message: Json<'_, '_>,
    field: &'static str,
) -> Result<Option<Decimal>, DecodeError> {
    match message.get(field) {
        None => Err(DecodeError::Field(field)),
        Some(value) if value.is_null() => Ok(None),
        Some(value) => as_decimal(value, field).map(Some),
    }
}

/// Converts a value to a price or size.
pub(super) fn as_decimal(value: Json<'_, '_>, field: &'static str) -> Result<Decimal, DecodeError> {
    let text = value.into_string().ok_or(DecodeError::Field(field))?;
    Decimal::parse(text.as_bytes()).map_err(|cause| DecodeError::Decimal {
        field,
        text: shortened(text),
        cause,
    })
}

/// Returns element `at` of an array as a price or size.
pub(super) fn decimal_at(
    array: Json<'_, '_>,
    at: usize,
    field: &'static str,
) -> Result<Decimal, DecodeError> {
    let value = array.as_array().and_then(|a| a.get(at)).ok_or(DecodeError::Field(field))?;
    as_decimal(value, field)
}

/// Returns a trade id, from text or number; [`TradeId::NONE`] if the field is missing.
pub(super) fn trade_id(message: Json<'_, '_>, field: &'static str) -> Result<TradeId, DecodeError> {
    match message.get(field) {
        None => Ok(TradeId::NONE),
        Some(value) => match (value.into_string(), value.as_u64()) {
            (Some(text), _) => TradeId::new(text).ok_or(DecodeError::Field(field)),
            (None, Some(id)) => Ok(TradeId::from_number(id)),
            (None, None) => Err(DecodeError::Field(field)),
        },
    }
}

/// Truncates a received text to 40 characters, for error messages.
pub(super) fn shortened(text: &str) -> String {
    match text.char_indices().nth(40) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// The format of the levels in a book message.
#[derive(Clone, Copy, Debug)]
enum Form {
    /// `[price, size, …]`; the list determines the side.
    Pair,
    /// `{"price": …, "qty": …}`; the list determines the side.
    Object,
    /// `[side, price, size]` (Coinbase `changes`): `buy` is the bid side.
    SidePriceSize,
}

/// The levels of a book message, decoded when read.
#[derive(Clone, Copy, Debug)]
pub struct Levels<'t, 'i> {
    form: Form,
    lists: [Option<(BookSide, Json<'t, 'i>)>; 2],
}

impl<'t, 'i> Levels<'t, 'i> {
    /// Returns levels in lists of `[price, size, …]`.
    pub(super) fn pairs(bids: Option<Json<'t, 'i>>, asks: Option<Json<'t, 'i>>) -> Self {
        Self::lists(Form::Pair, bids, asks)
    }

    /// Returns levels in lists of `{"price": …, "qty": …}`.
    pub(super) fn objects(bids: Option<Json<'t, 'i>>, asks: Option<Json<'t, 'i>>) -> Self {
        Self::lists(Form::Object, bids, asks)
    }

    /// Returns levels in one list of `[side, price, size]`.
    pub(super) fn changes(changes: Option<Json<'t, 'i>>) -> Self {
        Self::lists(Form::SidePriceSize, changes, None)
    }

    fn lists(form: Form, bids: Option<Json<'t, 'i>>, asks: Option<Json<'t, 'i>>) -> Self {
        Self { form, lists: [bids.map(|b| (BookSide::Bid, b)), asks.map(|a| (BookSide::Ask, a))] }
    }

    /// Returns the number of levels, removed ones included.
    pub fn len(&self) -> usize {
        self.lists.iter().flatten().filter_map(|(_, list)| list.as_array()).map(|list| list.len()).sum()
    }

    /// Returns true if the message changes nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Passes side, price and size of each level to `take`, in the order of the message. The size is `None`
    /// if it is negative or cannot be represented: the size at that price is then unknown. Levels at price 0
    /// are skipped: venues fill short sides with them.
    ///
    /// # Errors
    /// [`LevelsError`]: the first bad size, after all levels were passed on; or the first level whose side or
    /// price cannot be read, after those before it were passed on.
    pub fn for_each(
        &self,
        mut take: impl FnMut(BookSide, Decimal, Option<Decimal>),
    ) -> Result<(), LevelsError> {
        let mut unknown = None;
        for (side, list) in self.lists.iter().flatten() {
            let levels = list.as_array().ok_or(DecodeError::Field("levels")).map_err(LevelsError::book)?;
            for level in levels.iter() {
                let (side, price, size) = self.fields(*side, level).map_err(LevelsError::book)?;
                let price = price_of(price).map_err(LevelsError::book)?;
                if !price.is_zero() {
                    take(side, price, size_of_level(size, &mut unknown));
                }
            }
        }
        unknown.map_or(Ok(()), |cause| Err(LevelsError { cause, costs_book: false }))
    }

    /// Returns side, price and size of a level.
    #[inline]
    #[allow(clippy::type_complexity)]
    fn fields(
        &self,
        side: BookSide,
        level: Json<'t, 'i>,
    ) -> Result<(BookSide, Option<Json<'t, 'i>>, Option<Json<'t, 'i>>), DecodeError> {
        if matches!(self.form, Form::Object) {
            return Ok((side, level.get("price"), level.get("qty")));
        }
        // Indexing into an array walks over the elements before, so they are read in order.
        let Some(level) = level.as_array() else { return Ok((side, None, None)) };
        let mut values = level.iter();
        let side = match self.form {
            Form::SidePriceSize => match values.next().and_then(as_text) {
                Some("buy") => BookSide::Bid,
                Some("sell") => BookSide::Ask,
                _ => return Err(DecodeError::Field("changes")),
            },
            Form::Pair | Form::Object => side,
        };
        let price = values.next();
        Ok((side, price, values.next()))
    }
}

/// Parses the price of a level.
#[inline]
fn price_of(value: Option<Json<'_, '_>>) -> Result<Decimal, DecodeError> {
    let text = value.and_then(ValueIntoString::into_string).ok_or(DecodeError::Field("price"))?;
    match Decimal::parse(text.as_bytes()) {
        Ok(price) if !price.is_negative() => Ok(price),
        parsed => Err(bad_number("price", text, parsed, "a price is not negative on this venue")),
    }
}

/// Parses the size of a level; `None` if it is negative or cannot be represented. The first such fault is
/// kept in `fault`.
#[inline]
fn size_of_level(value: Option<Json<'_, '_>>, fault: &mut Option<Box<DecodeError>>) -> Option<Decimal> {
    let Some(text) = value.and_then(ValueIntoString::into_string) else {
        fault.get_or_insert_with(|| Box::new(DecodeError::Field("size")));
        return None;
    };
    match Decimal::parse(text.as_bytes()) {
        Ok(size) if !size.is_negative() => Some(size),
        parsed => {
            fault.get_or_insert_with(|| Box::new(bad_number("size", text, parsed, "a size is not negative")));
            None
        }
    }
}

#[cold]
fn bad_number(
    field: &'static str,
    text: &str,
    parsed: Result<Decimal, DecimalError>,
    why: &'static str,
) -> DecodeError {
    match parsed {
        Ok(value) => DecodeError::value(field, value, why),
        Err(cause) => DecodeError::Decimal { field, text: shortened(text), cause },
    }
}

/// Why levels could not all be applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LevelsError {
    /// The fault.
    pub cause: Box<DecodeError>,
    /// True if the affected price is unknown, so that the whole book is unreliable; otherwise only that level
    /// is.
    pub costs_book: bool,
}

impl LevelsError {
    fn book(cause: DecodeError) -> Self {
        Self { cause: Box::new(cause), costs_book: true }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_become_text_and_strings_stay() {
        let quoted = |text: &str| {
            let mut out = Vec::new();
            quote_numbers(text.as_bytes(), &mut out);
            String::from_utf8(out).expect("utf-8")
        };
        assert_eq!(quoted(r#"{"a":0.10000000,"b":[-1,2e-7]}"#), r#"{"a":"0.10000000","b":["-1","2e-7"]}"#);
        assert_eq!(quoted(r#"{"a 1":"x\"2","b":null}"#), r#"{"a 1":"x\"2","b":null}"#);
        assert_eq!(quoted(r#"["1"#), r#"["1"#, "an unfinished string is left to the parser");
        assert_eq!(quoted(r#"["1\"#), r#"["1\"#);
        assert_eq!(quoted("12"), "\"12\"");
    }

    #[test]
    fn any_bytes_are_refused_without_a_panic() {
        let mut scratch = Scratch::default();
        let deep = "[".repeat(60_000);
        for bad in ["", " ", "{", "nul", "\u{0}", "\"", "{\"a\":}", "[1,]", deep.as_str(), "\\"] {
            assert!(scratch.parse(bad.as_bytes(), |_| Ok(())).is_err(), "{bad:.20}");
            assert!(scratch.parse_numbers_as_text(bad.as_bytes(), |_| Ok(())).is_err(), "{bad:.20}");
        }
        assert!(scratch.parse(&[0xff, 0xfe], |_| Ok(())).is_err());
        assert!(scratch.parse(b"{}", |_| Ok(())).is_ok(), "and the next frame is read");
    }
}
