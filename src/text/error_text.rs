//! Errors as text for people.

/// Returns an error and its causes on one line. Many errors include their cause in their own text: it is not
/// repeated.
pub fn whole(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |said, cause| match said.as_str() {
        "" => cause,
        said if said.ends_with(&cause) => said.to_owned(),
        said => format!("{said}: {cause}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_said_once() {
        let cause = std::io::Error::other("it is gone");
        let error = anyhow::Error::from(cause).context("a.txt: it is gone").context("feed 0");
        assert_eq!(whole(&error), "feed 0: a.txt: it is gone");
        assert_eq!(whole(&anyhow::anyhow!("plain").context("why")), "why: plain");
    }
}
