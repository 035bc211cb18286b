//! Errors in requests, with the `id` that the answer repeats.

use serde_json::{Map, Value};

/// Longest `id`, `t` or symbol text that a request may contain, in bytes.
pub(super) const TEXT_BYTES_MAX: usize = 128;

/// The `id` that a client gave a request; the answer repeats it.
#[derive(Clone, Debug, PartialEq)]
pub struct Id(Value);

impl Id {
    /// The value as the client sent it: a string or an integer.
    pub fn value(&self) -> &Value {
        &self.0
    }

    /// The `id` of a message; `None` if it has none.
    pub(super) fn of(message: &Map<String, Value>) -> Result<Option<Self>, Fault> {
        match message.get("id") {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) if text.len() <= TEXT_BYTES_MAX => Ok(Some(Self(text.clone().into()))),
            Some(Value::Number(number)) if !number.is_f64() => Ok(Some(Self(number.clone().into()))),
            Some(_) => Err(Fault::bad(format!(
                "`id` must be an integer or a string of up to {TEXT_BYTES_MAX} bytes"
            ))),
        }
    }
}

/// An error in a request.
#[derive(Clone, Debug, PartialEq)]
pub struct Fault {
    /// The `id` of the request, if it could be read.
    pub id: Option<Id>,
    /// Error code for programs.
    pub code: &'static str,
    /// Error message for people; names the field.
    pub msg: String,
}

impl Fault {
    pub(super) fn bad(msg: impl Into<String>) -> Self {
        Self { id: None, code: "bad_request", msg: msg.into() }
    }
}

/// A received text, quoted and shortened for an error message.
pub(super) fn quoted(text: &str) -> String {
    format!("{:?}", text.chars().take(40).collect::<String>())
}

/// A received value, shortened for an error message.
pub(super) fn shown(value: &Value) -> String {
    match value {
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
        other => other.to_string().chars().take(40).collect(),
    }
}
