//! Text: safe printing of external strings, errors with their causes, values as JSON.

pub mod error_text;
pub mod json;
pub mod printable;
