//! A table in a file, CSV or Parquet, written row by row.

use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use parquet::basic::{Compression, Repetition, Type as Physical};
use parquet::column::writer::ColumnWriter;
use parquet::data_type::{ByteArray, FixedLenByteArray};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;

use crate::model::tick::{Decimal, Side};
use crate::system::atomic_file::AtomicFile;
use crate::text::printable;

/// The columns of a table.
pub(super) struct Columns {
    /// Header of the CSV file. Cells beyond its columns are omitted.
    pub(super) csv: &'static str,
    /// Schema of the Parquet file, in the notation of `parquet-mr`.
    pub(super) parquet: &'static str,
}

/// One value of a row.
#[derive(Clone, Copy, Debug)]
pub(super) enum Cell<'a> {
    /// Text; may be empty.
    Text(&'a [u8]),
    /// An integer.
    Number(u64),
    /// Time of the venue, microseconds. If it is missing, CSV has the receive time, as tardis.dev does;
    /// Parquet has a null.
    VenueTime { ts_us: Option<u64>, rx_ns: u64 },
    /// Receive time: microseconds in CSV, nanoseconds in Parquet.
    LocalTime { rx_ns: u64 },
    /// Side of the aggressor; if missing, `unknown` in CSV, as in the files of tardis.dev, and null in
    /// Parquet.
    Side(Option<Side>),
    /// A price or size.
    Decimal(Option<Decimal>),
}

/// A table that is being written.
pub(super) enum Sheet {
    Csv { out: BufWriter<AtomicFile>, line: Vec<u8>, columns: usize, path: PathBuf },
    Parquet(Box<ParquetSheet>),
}

impl Sheet {
    /// Creates a CSV file with its header.
    pub(super) fn csv(path: &Path, columns: &Columns) -> anyhow::Result<Self> {
        let mut out = BufWriter::with_capacity(super::WRITE_BYTES, create(path)?);
        writeln!(out, "{}", columns.csv).with_context(|| printable::path(path).to_string())?;
        let columns = columns.csv.split(',').count();
        Ok(Self::Csv { out, line: Vec::with_capacity(256), columns, path: path.to_owned() })
    }

    /// Creates a Parquet file.
    pub(super) fn parquet(path: &Path, columns: &Columns) -> anyhow::Result<Self> {
        let sheet = ParquetSheet::create(path, columns).with_context(|| printable::path(path).to_string())?;
        Ok(Self::Parquet(Box::new(sheet)))
    }

    /// Appends a row.
    pub(super) fn row(&mut self, cells: &[Cell<'_>]) -> io::Result<()> {
        match self {
            Self::Csv { out, line, columns, .. } => {
                line.clear();
                for cell in &cells[..*columns] {
                    cell.write_csv(line);
                    line.push(b',');
                }
                line.pop();
                line.push(b'\n');
                out.write_all(line)
            }
            Self::Parquet(sheet) => sheet.row(cells),
        }
    }

    /// Writes the rest. The returned file is complete and can be committed.
    pub(super) fn finish(self) -> anyhow::Result<AtomicFile> {
        match self {
            Self::Csv { out, path, .. } => {
                let file = out.into_inner().map_err(io::IntoInnerError::into_error);
                file.with_context(|| printable::path(&path).to_string())
            }
            Self::Parquet(sheet) => {
                let path = printable::path(&sheet.path).to_string();
                sheet.finish().context(path)
            }
        }
    }
}

/// Creates a file that will be committed to `path`.
pub(super) fn create(path: &Path) -> anyhow::Result<AtomicFile> {
    AtomicFile::create(path).with_context(|| format!("{}: cannot create it", printable::path(path)))
}

impl Cell<'_> {
    fn write_csv(&self, out: &mut Vec<u8>) {
        let number = |value: u64, out: &mut Vec<u8>| {
            out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
        };
        match *self {
            // RFC 4180, 2.6 and 2.7.
            Self::Text(text) if text.iter().any(|b| matches!(b, b',' | b'"' | b'\n' | b'\r')) => {
                out.push(b'"');
                for byte in text {
                    out.extend_from_slice(if *byte == b'"' { b"\"\"" } else { std::slice::from_ref(byte) });
                }
                out.push(b'"');
            }
            Self::Text(text) => out.extend_from_slice(text),
            Self::Number(value) => number(value, out),
            Self::VenueTime { ts_us, rx_ns } => number(ts_us.unwrap_or(rx_ns / 1_000), out),
            Self::LocalTime { rx_ns } => number(rx_ns / 1_000, out),
            Self::Side(side) => out.extend_from_slice(side.map_or("unknown", Side::name).as_bytes()),
            Self::Decimal(Some(value)) => value.write(out),
            Self::Decimal(None) => {}
        }
    }
}

/// Rows of a row group, which takes about 20 MB of memory.
const ROWS_PER_GROUP: usize = 131_072;

/// Scale of every decimal, so that all files have one schema and can be concatenated. 38 digits are the most
/// that every reader of Parquet supports, and 18 of them are decimal places. A price or size has up to 28
/// digits (a mantissa of 96 bits): one that does not fit `DECIMAL(38, 18)` is an error.
const PLACES: u8 = 18;

/// A Parquet file.
pub(super) struct ParquetSheet {
    path: PathBuf,
    writer: SerializedFileWriter<AtomicFile>,
    columns: Vec<Column>,
    rows: usize,
}

/// A column of the current row group.
struct Column {
    values: Values,
    /// 1 for a value, 0 for a null; `None` if the column has no nulls.
    levels: Option<Vec<i16>>,
}

enum Values {
    Numbers(Vec<i64>),
    Texts(Vec<ByteArray>),
    Decimals(Vec<FixedLenByteArray>),
}

impl ParquetSheet {
    fn create(path: &Path, columns: &Columns) -> anyhow::Result<Self> {
        let schema = Arc::new(parse_message_type(columns.parquet)?);
        let mut empty = Vec::new();
        for field in schema.get_fields() {
            let values = match field.get_physical_type() {
                Physical::INT64 => Values::Numbers(Vec::new()),
                Physical::BYTE_ARRAY => Values::Texts(Vec::new()),
                _ => Values::Decimals(Vec::new()),
            };
            let nulls = field.get_basic_info().repetition() == Repetition::OPTIONAL;
            empty.push(Column { values, levels: nulls.then(Vec::new) });
        }
        let properties = WriterProperties::builder().set_compression(Compression::SNAPPY);
        let writer = SerializedFileWriter::new(create(path)?, schema, Arc::new(properties.build()))?;
        Ok(Self { path: path.to_owned(), writer, columns: empty, rows: 0 })
    }

    fn row(&mut self, cells: &[Cell<'_>]) -> io::Result<()> {
        for (column, cell) in self.columns.iter_mut().zip(cells) {
            column.push(cell)?;
        }
        self.rows += 1;
        if self.rows < ROWS_PER_GROUP { Ok(()) } else { self.write_group().map_err(io::Error::other) }
    }

    fn write_group(&mut self) -> Result<(), ParquetError> {
        if self.rows == 0 {
            return Ok(());
        }
        self.rows = 0;
        let mut group = self.writer.next_row_group()?;
        for column in &mut self.columns {
            let Some(mut writer) = group.next_column()? else { break };
            let levels = column.levels.as_deref();
            match (writer.untyped(), &column.values) {
                (ColumnWriter::Int64ColumnWriter(out), Values::Numbers(values)) => {
                    out.write_batch(values, levels, None)?;
                }
                (ColumnWriter::ByteArrayColumnWriter(out), Values::Texts(values)) => {
                    out.write_batch(values, levels, None)?;
                }
                (ColumnWriter::FixedLenByteArrayColumnWriter(out), Values::Decimals(values)) => {
                    out.write_batch(values, levels, None)?;
                }
                _ => {
                    return Err(ParquetError::General("a column of another type than its schema".to_owned()));
                }
            }
            writer.close()?;
            column.clear();
        }
        group.close()?;
        Ok(())
    }

    fn finish(mut self) -> Result<AtomicFile, ParquetError> {
        self.write_group()?;
        self.writer.into_inner()
    }
}

impl Column {
    fn push(&mut self, cell: &Cell<'_>) -> io::Result<()> {
        let number = |value: u64| {
            i64::try_from(value).map_err(|_| io::Error::other("a time or number beyond 63 bits"))
        };
        let some = match (&mut self.values, *cell) {
            (Values::Numbers(values), Cell::Number(value) | Cell::LocalTime { rx_ns: value }) => {
                values.push(number(value)?);
                true
            }
            (Values::Numbers(values), Cell::VenueTime { ts_us, .. }) => {
                values.extend(ts_us.map(number).transpose()?);
                ts_us.is_some()
            }
            (Values::Texts(values), Cell::Text(text)) => {
                let some = !text.is_empty() || self.levels.is_none();
                values.extend(some.then(|| ByteArray::from(text.to_vec())));
                some
            }
            (Values::Texts(values), Cell::Side(side)) => {
                values.extend(side.map(|side| ByteArray::from(side.name())));
                side.is_some()
            }
            (Values::Decimals(values), Cell::Decimal(value)) => {
                values.extend(value.map(fixed).transpose()?);
                value.is_some()
            }
            _ => return Err(io::Error::other("a cell of another type than its column")),
        };
        if let Some(levels) = &mut self.levels {
            levels.push(i16::from(some));
        }
        Ok(())
    }

    fn clear(&mut self) {
        match &mut self.values {
            Values::Numbers(values) => values.clear(),
            Values::Texts(values) => values.clear(),
            Values::Decimals(values) => values.clear(),
        }
        if let Some(levels) = &mut self.levels {
            levels.clear();
        }
    }
}

/// A decimal in Parquet's representation: the value times 10^[`PLACES`], big-endian. The value is exact;
/// trailing zeros are lost.
fn fixed(value: Decimal) -> io::Result<FixedLenByteArray> {
    /// Limit of 38 digits.
    const LIMIT: i128 = 10i128.pow(38);
    let (mantissa, scale) = (value.mantissa(), value.scale());
    let scaled = if scale <= PLACES {
        let scaled = mantissa.checked_mul(10i128.pow(u32::from(PLACES - scale)));
        scaled.filter(|scaled| -LIMIT < *scaled && *scaled < LIMIT)
    } else {
        let divisor = 10i128.checked_pow(u32::from(scale - PLACES));
        match divisor {
            _ if mantissa == 0 => Some(0),
            Some(divisor) if mantissa % divisor == 0 => Some(mantissa / divisor),
            _ => None,
        }
    };
    let scaled = scaled.ok_or_else(|| {
        io::Error::other(format!(
            "{value} has more than the {PLACES} places behind the point, or the 20 digits in front of it, of a Parquet column: \
             convert to csv or ndjson"
        ))
    })?;
    Ok(FixedLenByteArray::from(scaled.to_be_bytes().to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn csv(cell: Cell<'_>) -> String {
        let mut out = Vec::new();
        cell.write_csv(&mut out);
        String::from_utf8(out).expect("ASCII")
    }

    #[test]
    fn csv_cells_are_those_of_the_data_sets() {
        let decimal = Decimal::parse(b"0.0100").expect("a number");
        let (ts_us, rx_ns) = (None, 1_618_677_817_431_936_789);
        assert_eq!(csv(Cell::Decimal(Some(decimal))), "0.0100", "digits as they came");
        assert_eq!(csv(Cell::Decimal(None)), "");
        assert_eq!(
            csv(Cell::VenueTime { ts_us, rx_ns }),
            "1618677817431936",
            "ours, where the venue tells none"
        );
        assert_eq!(csv(Cell::VenueTime { ts_us: Some(5), rx_ns }), "5");
        assert_eq!(csv(Cell::Side(None)), "unknown");
        assert_eq!(csv(Cell::Text(b"a,\"b\"")), "\"a,\"\"b\"\"\"");
    }

    #[test]
    fn a_decimal_is_the_same_value_or_refused() {
        let scaled = |text: &str| {
            let value =
                fixed(Decimal::parse(text.as_bytes()).expect(text)).map_err(|error| error.to_string())?;
            let bytes: [u8; 16] = value.data().try_into().expect("16 bytes");
            Ok::<_, String>(i128::from_be_bytes(bytes))
        };
        let one = 10i128.pow(18);
        assert_eq!(scaled("1"), Ok(one));
        assert_eq!(scaled("-0.0100"), Ok(-one / 100));
        assert_eq!(scaled("9223372036854775807"), Ok(i128::from(i64::MAX) * one));
        assert_eq!(scaled("1e-18"), Ok(1));
        assert_eq!(scaled("0.0000000000000000010"), Ok(1));
        assert_eq!(scaled("0e-200"), Ok(0));
        let twenty_digits = 9_999_999_999_999_999_999_912_345_678 * 10i128.pow(10);
        assert_eq!(scaled("99999999999999999999.12345678"), Ok(twenty_digits));
        assert!(scaled("100000000000000000000").is_err_and(|error| error.contains("20 digits")));
        assert!(scaled("1e-19").is_err_and(|error| error.contains("18 places")));
        assert!(scaled("1e-200").is_err());
    }
}
