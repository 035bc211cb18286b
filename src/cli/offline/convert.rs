//! Converts captures to files for other programs, with the same ticks as `normalize`.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::str::FromStr;

use anyhow::{Context, ensure};

use super::sheet::{Cell, Columns, Sheet, create};
use super::{Captures, InputEnd, Opened, Progress, normalize, open, read, summary};
use crate::config::LimitsConfig;
use crate::feed::Replay;
use crate::model::instrument::Symbol;
use crate::model::tick::{Body, Tick};
use crate::system::atomic_file::AtomicFile;
use crate::text::printable;

/// Output format of a conversion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputFormat {
    /// One JSON object per line, in the wire format.
    Ndjson,
    /// Text tables, with the digits as received.
    Csv,
    /// Tables of exact decimals.
    Parquet,
}

impl FromStr for OutputFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "ndjson" => Ok(Self::Ndjson),
            "csv" => Ok(Self::Csv),
            "parquet" => Ok(Self::Parquet),
            _ => Err(format!("unknown form {text:?}: ndjson, csv or parquet")),
        }
    }
}

/// The trades. The first eight columns are those of the `trades` data sets of tardis.dev, in their order
/// (<https://docs.tardis.dev/downloadable-csv-files>); CSV has only these.
const TRADES: Columns = Columns {
    csv: "exchange,symbol,timestamp,local_timestamp,id,side,price,amount",
    parquet: "message trades {
        required byte_array exchange (STRING);
        required byte_array symbol (STRING);
        optional int64 timestamp (TIMESTAMP(MICROS,true));
        required int64 local_timestamp (TIMESTAMP(NANOS,true));
        optional byte_array id (STRING);
        optional byte_array side (STRING);
        required fixed_len_byte_array(16) price (DECIMAL(38,18));
        required fixed_len_byte_array(16) amount (DECIMAL(38,18));
        required int64 seq;
    }",
};

/// The quotes, in the same way as the `quotes` data sets of tardis.dev.
const QUOTES: Columns = Columns {
    csv: "exchange,symbol,timestamp,local_timestamp,ask_amount,ask_price,bid_price,bid_amount",
    parquet: "message quotes {
        required byte_array exchange (STRING);
        required byte_array symbol (STRING);
        optional int64 timestamp (TIMESTAMP(MICROS,true));
        required int64 local_timestamp (TIMESTAMP(NANOS,true));
        optional fixed_len_byte_array(16) ask_amount (DECIMAL(38,18));
        optional fixed_len_byte_array(16) ask_price (DECIMAL(38,18));
        optional fixed_len_byte_array(16) bid_price (DECIMAL(38,18));
        optional fixed_len_byte_array(16) bid_amount (DECIMAL(38,18));
        required int64 seq;
    }",
};

/// Losses of the feed: sequence numbers `from_seq` to `to_seq` of a channel. tardis.dev has no such data set.
const GAPS: Columns = Columns {
    csv: "exchange,symbol,local_timestamp,channel,from_seq,to_seq",
    parquet: "message gaps {
        required byte_array exchange (STRING);
        required byte_array symbol (STRING);
        required int64 local_timestamp (TIMESTAMP(NANOS,true));
        required byte_array channel (STRING);
        required int64 from_seq;
        required int64 to_seq;
    }",
};

/// Writes the ticks of captures: as lines to the file `out`, or to `stdout` if it is `None`; as tables to
/// `trades`, `quotes` and `gaps` in the folder `out`. Errors in the captures and the counts go to `log`.
/// Existing files are replaced only once the new ones are complete.
///
/// # Errors
/// A capture that does not open, with `strict` the first bad record, output that cannot be written, tables
/// without a folder, a number that a Parquet decimal cannot represent.
pub fn convert(
    captures: &Captures,
    limits: &LimitsConfig,
    (to, out): (OutputFormat, Option<&Path>),
    stdout: impl Write,
    mut log: impl Write,
    progress: &mut Progress,
) -> anyhow::Result<InputEnd> {
    let extension = match (to, out) {
        (OutputFormat::Ndjson, None) => return normalize(captures, limits, stdout, log, progress),
        (OutputFormat::Ndjson, Some(path)) => {
            let mut file = create(path)?;
            let input = normalize(captures, limits, &mut file, log, progress)?;
            file.commit().with_context(|| printable::path(path).to_string())?;
            return Ok(input);
        }
        (OutputFormat::Csv, _) => "csv",
        (OutputFormat::Parquet, _) => "parquet",
    };
    ensure!(
        out.is_some(),
        "--out must name the folder for trades.{extension}, quotes.{extension} and gaps.{extension}"
    );
    let folder = out.unwrap_or(Path::new("."));
    let opened = open(captures, limits)?;
    let is_new = !folder.exists();
    fs::create_dir_all(folder)
        .with_context(|| format!("{}: cannot create the folder", printable::path(folder)))?;
    let replay = Sheets::create(to, folder, extension)
        .and_then(|sheets| sheets.write(opened, folder, &mut log, progress))
        .inspect_err(|_| {
            if is_new {
                // Fails if the folder contains other files, which stay.
                let _ = fs::remove_dir(folder);
            }
        })?;
    progress.end();
    summary(&replay, &mut log)?;
    Ok(InputEnd::of(&replay))
}

struct Sheets {
    trades: Sheet,
    quotes: Sheet,
    gaps: Sheet,
}

impl Sheets {
    /// Creates the three tables in a folder.
    fn create(to: OutputFormat, folder: &Path, extension: &str) -> anyhow::Result<Self> {
        let begin = |name: &str, columns: &Columns| {
            let path = folder.join(format!("{name}.{extension}"));
            if to == OutputFormat::Csv { Sheet::csv(&path, columns) } else { Sheet::parquet(&path, columns) }
        };
        Ok(Self {
            trades: begin("trades", &TRADES)?,
            quotes: begin("quotes", &QUOTES)?,
            gaps: begin("gaps", &GAPS)?,
        })
    }

    /// Writes all ticks of the captures, and then moves the tables to their final names.
    fn write(
        mut self,
        opened: Opened,
        folder: &Path,
        log: &mut impl Write,
        progress: &mut Progress,
    ) -> anyhow::Result<Replay> {
        let replay = read(opened, log, progress, |tick, table| match table.get(tick.instrument) {
            Some(symbol) => self.take(tick, symbol),
            None => Ok(()),
        })?;
        let files = [self.trades.finish()?, self.quotes.finish()?, self.gaps.finish()?];
        AtomicFile::commit_all(files).with_context(|| printable::path(folder).to_string())?;
        Ok(replay)
    }

    fn take(&mut self, tick: &Tick, symbol: &Symbol) -> std::io::Result<()> {
        let &Tick { seq, rx_ns, ts_us, .. } = tick;
        let exchange = Cell::Text(symbol.venue().as_bytes());
        let name = Cell::Text(symbol.name().as_bytes());
        let (timestamp, local) = (Cell::VenueTime { ts_us, rx_ns }, Cell::LocalTime { rx_ns });
        match &tick.body {
            Body::Trade(trade) => self.trades.row(&[
                exchange,
                name,
                timestamp,
                local,
                Cell::Text(trade.id.as_bytes()),
                Cell::Side(trade.side),
                Cell::Decimal(Some(trade.price)),
                Cell::Decimal(Some(trade.size)),
                Cell::Number(seq),
            ]),
            Body::Quote(quote) => self.quotes.row(&[
                exchange,
                name,
                timestamp,
                local,
                Cell::Decimal(quote.ask_size),
                Cell::Decimal(quote.ask),
                Cell::Decimal(quote.bid),
                Cell::Decimal(quote.bid_size),
                Cell::Number(seq),
            ]),
            Body::Gap { channel, from, .. } => self.gaps.row(&[
                exchange,
                name,
                local,
                Cell::Text(channel.name().as_bytes()),
                Cell::Number(*from),
                Cell::Number(seq),
            ]),
            Body::Status(_) => Ok(()),
        }
    }
}
