//! Values as JSON text.

use serde::Serialize;

/// Appends a value as JSON. Serialisation cannot fail for structs and maps with text keys, and nothing else
/// is written here.
pub fn write(value: &(impl Serialize + ?Sized), out: &mut Vec<u8>) {
    let written = serde_json::to_writer(out, value);
    debug_assert!(written.is_ok(), "a value of maps with text keys: {written:?}");
}
