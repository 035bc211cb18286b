//! Text: strings from outside made safe to print, errors with their causes, values as JSON.

pub mod error_text;
pub mod json;
pub mod printable;
