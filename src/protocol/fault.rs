//! What is wrong with a request, and what its answer needs to be found again: its id.

use serde_json::{Map, Value};

/// The longest `id`, `t` or symbol text that is taken in, in bytes.
pub(super) const TEXT_BYTES_MAX: usize = 128;

/// What a client called its request; it comes back in the answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Id(Value);

impl Id {
    /// As it was sent: a string or an integer.
    pub fn value(&self) -> &Value {
        &self.0
    }

    /// The `id` of a message, if it has one.
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

/// What is wrong with a request.
#[derive(Clone, Debug, PartialEq)]
pub struct Fault {
    /// The id, where it could be read.
    pub id: Option<Id>,
    /// A word for programs.
    pub code: &'static str,
    /// A sentence for people, naming the field.
    pub msg: String,
}

impl Fault {
    pub(super) fn bad(msg: impl Into<String>) -> Self {
        Self { id: None, code: "bad_request", msg: msg.into() }
    }
}

/// Text from outside, short enough for an error message.
pub(super) fn quoted(text: &str) -> String {
    format!("{:?}", text.chars().take(40).collect::<String>())
}

/// A value from outside, short enough for an error message.
pub(super) fn shown(value: &Value) -> String {
    match value {
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
        other => other.to_string().chars().take(40).collect(),
    }
}
